//! Who talks where.
//!
//! A conversation begins with the rows of its members' indexes and then its list of members, one
//! conditional batch in one partition: so it is there as a whole or not at all, the first list
//! stands, and who finds it finds the conversation in every index. A beginning that is cut off in
//! between leaves index rows of a conversation without members; it counts as not begun.

use futures_util::future::try_join_all;
use scylla::response::PagingState;
use skein_protocol::{ConversationId, UserId};

use super::core::Core;
use super::{conditional, errors, statements};
use crate::StoreError;

/// How often a list of members is tried whose outcome is not known. Trying again later does as
/// well: what was begun is found begun.
const ATTEMPTS: u32 = 3;

impl Core {
    /// See [`ConversationIndex::begin`](crate::ConversationIndex::begin).
    pub(super) async fn begin(
        &self,
        conversation: ConversationId,
        members: Vec<UserId>,
    ) -> Result<(), StoreError> {
        // Almost always it has begun before.
        if members.is_empty() || self.members(conversation).await?.is_some() {
            return Ok(());
        }
        let listed = members.iter().map(|user| self.index(user, conversation, true));
        try_join_all(listed).await?;
        if self.write_members(conversation, &members).await? {
            return Ok(());
        }
        // Whoever began it at the same moment was first, perhaps with others.
        let first = self.members_serial(conversation).await?;
        let not_in = |user: &&UserId| !first.contains(user);
        let strays = members.iter().filter(not_in);
        try_join_all(strays.map(|user| self.index(user, conversation, false))).await?;
        Ok(())
    }

    /// Puts a conversation into a user's index, or takes it out.
    async fn index(
        &self,
        user: &UserId,
        conversation: ConversationId,
        is_in: bool,
    ) -> Result<(), StoreError> {
        let _place = self.place(&self.registers, "writes").await?;
        let statement = if is_in { &self.statements.list } else { &self.statements.unlist };
        let values = (user.as_str(), &conversation.as_bytes()[..]);
        let written = self.session.execute_unpaged(statement, values).await;
        self.register_written(written.map(drop))
    }

    /// Writes the list; false if there was one, perhaps from an attempt whose answer was lost.
    async fn write_members(
        &self,
        conversation: ConversationId,
        members: &[UserId],
    ) -> Result<bool, StoreError> {
        let _place = self.place(&self.registers, "writes").await?;
        let mut batch = statements::batch(self.quorum, true);
        let mut values = Vec::with_capacity(members.len());
        for (place, user) in (0i32..).zip(members) {
            let statement = match place {
                0 => &self.statements.first_member,
                _ => &self.statements.other_member,
            };
            batch.append_statement(statement.clone());
            values.push((&conversation.as_bytes()[..], place, user.as_str()));
        }
        let mut attempt = 1;
        loop {
            let written = self.session.batch(&batch, &values).await;
            match self.register_written(written) {
                Ok(answer) => return conditional::is_applied(answer),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// See [`ConversationIndex::members`](crate::ConversationIndex::members).
    pub(super) async fn members(
        &self,
        conversation: ConversationId,
    ) -> Result<Option<Vec<UserId>>, StoreError> {
        let id = (&conversation.as_bytes()[..],);
        let members = users(&self.rows(&self.statements.members, id).await?)?;
        Ok((!members.is_empty()).then_some(members))
    }

    async fn members_serial(
        &self,
        conversation: ConversationId,
    ) -> Result<Vec<UserId>, StoreError> {
        let id = (&conversation.as_bytes()[..],);
        users(&self.serial_rows(&self.statements.members_serial, id).await?)
    }

    /// See [`ConversationIndex::conversations`](crate::ConversationIndex::conversations).
    pub(super) async fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let (user, most) = (user.as_str(), i32::try_from(limit).unwrap_or(i32::MAX));
        let (mut found, mut paging) = (Vec::new(), PagingState::start());
        while found.len() < limit {
            let (session, statements) = (&self.session, &self.statements);
            let asked = match &after {
                None => session.execute_single_page(&statements.listed, (user, most), paging).await,
                Some(after) => {
                    let values = (user, &after.as_bytes()[..], most);
                    session.execute_single_page(&statements.listed_after, values, paging).await
                }
            };
            let (answer, next) = asked.map_err(|error| errors::unavailable(&error))?;
            let answer = answer.into_rows_result().map_err(errors::unexpected)?;
            for row in answer.rows::<(&[u8],)>().map_err(errors::unexpected)? {
                let (id,) = row.map_err(errors::unexpected)?;
                found.push(ConversationId::parse(id).map_err(errors::unexpected)?);
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => break,
                std::ops::ControlFlow::Continue(next) => paging = next,
            }
        }
        Ok(found)
    }
}

fn users(
    answer: &scylla::response::query_result::QueryRowsResult,
) -> Result<Vec<UserId>, StoreError> {
    let rows = answer.rows::<(&str,)>().map_err(errors::unexpected)?;
    rows.map(|row| {
        let (user,) = row.map_err(errors::unexpected)?;
        UserId::parse(user).map_err(errors::unexpected)
    })
    .collect()
}
