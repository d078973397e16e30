//! What is explored: sizes, who sends what to whom, how much goes wrong, and which bug is planted.

use skein_storage::scylla::layout::Layout;

use crate::cluster::Msg;
use crate::gateway::Rules;

/// A message as its client sends it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Post {
    /// To which gateway.
    pub(crate) to: usize,
    /// The client has sent it before. With each attempt it names the head that it knew at the
    /// first.
    pub(crate) is_repetition: bool,
}

/// For the first time, to this gateway.
pub(crate) const fn first(to: usize) -> Post {
    Post { to, is_repetition: false }
}

/// Again, to this gateway.
pub(crate) const fn again(to: usize) -> Post {
    Post { to, is_repetition: true }
}

/// How many things may go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trouble {
    /// Answers that do not come; the batch may be carried out at any time after, or never.
    pub(crate) lost: u8,
    /// Requests that are known not to have left the gateway.
    pub(crate) unsent: u8,
    /// Gateways that lose their memory.
    pub(crate) crashes: u8,
    /// Conversations that a gateway forgets because they are idle.
    pub(crate) forgotten: u8,
}

/// What is done wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The batch has no condition.
    Unconditional,
    /// An unknown outcome counts as a failure: the message is given a new number.
    UnknownIsFailure,
    /// An unknown outcome counts as a failure: the message is refused.
    UnknownIsRefusal,
    /// An unknown outcome counts as success.
    UnknownIsSuccess,
    /// A head where ours would stand counts as ours.
    DoubtIsSuccess,
    /// A head where ours would stand counts as somebody else's.
    DoubtIsConflict,
    /// A partition is opened without a look at the one before.
    NoEvidence,
    /// A partition's head goes away some time after its rows were written.
    HeadExpires,
    /// An append is cut in two at the edge of a bucket.
    SplitAtEdge,
    /// After a conflict the head is believed, and what it stands for is not read.
    NoReload,
    /// Head and rows are read without serial consistency.
    PlainLoad,
    /// A client names the head that it knew with a repetition only, and what names none is looked
    /// for among recent messages only.
    SilentFirstAttempt,
}

/// One bounded world.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) layout: Layout,
    pub(crate) rules: Rules,
    /// Logs to begin with: each the sizes of its appends.
    pub(crate) logs: Vec<Vec<usize>>,
    /// Message by message what its client sends. Each arrives once, in any order: a first attempt
    /// may be overtaken by its repetition.
    pub(crate) posts: Vec<Vec<Post>>,
    pub(crate) trouble: Trouble,
    /// Rows of different gateways may be equal in every column.
    pub(crate) clocks_agree: bool,
    /// Somebody appends at numbers beyond the end, as a gateway might whose cluster was restored
    /// from an older backup.
    pub(crate) has_stray: bool,
    /// Late batches that cannot be applied any more are carried out too, and refused.
    pub(crate) keeps_refused: bool,
    pub(crate) bug: Option<Bug>,
}

impl Scene {
    /// Three messages, two of one client's gateway and one of another's, each of them sent to the
    /// other gateway too, to an empty log; no trouble.
    pub(crate) fn new() -> Self {
        let posts =
            vec![vec![first(0), again(1)], vec![first(0), again(1)], vec![first(1), again(0)]];
        Self {
            layout: Layout::new(2, 2),
            rules: Rules { max_append: 2, window: 2, splits_at_edge: false },
            logs: vec![Vec::new()],
            posts,
            trouble: Trouble::default(),
            clocks_agree: false,
            has_stray: false,
            keeps_refused: false,
            bug: None,
        }
    }

    /// With this planted.
    pub(crate) fn with(self, bug: Bug) -> Self {
        let rules = Rules { splits_at_edge: bug == Bug::SplitAtEdge, ..self.rules };
        let heads_rise = !matches!(bug, Bug::HeadExpires | Bug::Unconditional);
        Self { bug: Some(bug), rules, keeps_refused: !heads_rise, ..self }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Messages with equal posts are interchangeable, so they come in the order of their names.
    pub(crate) fn may_come_before(&self, msg: Msg) -> Option<Msg> {
        let before = msg.checked_sub(1)?;
        let [before_posts, posts] = [before, msg].map(|msg| self.posts.get(msg as usize));
        (before_posts == posts).then_some(before)
    }
}
