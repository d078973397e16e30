//! Where messages wait until they are acknowledged.
//!
//! `send` accepts a message once [`Outbox::add`] has returned, so an outbox that keeps its promise
//! never loses a message that was accepted. Messages that are found at the start are sent again
//! under their ids; the gateway stores each once.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use prost::Message as _;
use skein_protocol::client::{Origin, Outgoing, Target};
use skein_protocol::wire;
use skein_protocol::{ClientMsgId, ConversationId, Seq, UserId};

use crate::journal::Journal;

/// Keeps messages until they are acknowledged. Called from a thread of its own; it may block.
///
/// Implement it for another store. After an error the SDK accepts no more messages.
pub trait Outbox: Send + 'static {
    /// The messages that wait, in the order in which they were added. Called once, first.
    ///
    /// # Errors
    /// They cannot be read.
    fn load(&mut self) -> io::Result<Vec<Waiting>>;

    /// Adds messages. They are kept, as durably as this outbox promises, when it returns.
    ///
    /// # Errors
    /// They are not kept.
    fn add(&mut self, messages: &[Waiting]) -> io::Result<()>;

    /// Forgets messages. May be lost in a crash: they are then sent again, and answered as before.
    ///
    /// # Errors
    /// The outbox cannot be written.
    fn remove(&mut self, ids: &[ClientMsgId]) -> io::Result<()>;
}

/// A message that waits for its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub id: ClientMsgId,
    /// To whom.
    pub to: Target,
    /// MIME type of the payload; empty for plain text.
    pub content_type: String,
    /// What to say.
    pub payload: bytes::Bytes,
    /// The conversation's head that was known when it was accepted; its own number is above.
    pub after: Seq,
}

impl Waiting {
    /// As the session rules take a message that may have been sent before.
    pub(crate) fn into_outgoing(self) -> Outgoing {
        let Waiting { id, to, content_type, payload, after } = self;
        Outgoing { id, to, content_type, payload, origin: Origin::MaybeSent { after } }
    }
}

/// An outbox that forgets everything with the process.
#[derive(Debug, Default)]
pub struct MemoryOutbox;

impl Outbox for MemoryOutbox {
    // The session rules hold the messages themselves; there is nothing to keep beside them.
    fn load(&mut self) -> io::Result<Vec<Waiting>> {
        Ok(Vec::new())
    }

    fn add(&mut self, _: &[Waiting]) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &[ClientMsgId]) -> io::Result<()> {
        Ok(())
    }
}

/// An outbox in a file, fsynced before a message counts as accepted. One process at a time.
#[derive(Debug)]
pub struct FileOutbox {
    journal: Journal,
    /// Encoded records of what waits, in order, for the next rewrite.
    live: BTreeMap<u64, (ClientMsgId, Vec<u8>)>,
    places: std::collections::HashMap<ClientMsgId, u64>,
    live_bytes: u64,
    next: u64,
    loaded: Vec<Waiting>,
}

/// First byte of a record: a message was added, or forgotten.
const ADDED: u8 = 1;
const REMOVED: u8 = 2;

impl FileOutbox {
    /// Opens the outbox in this folder, or makes one.
    ///
    /// # Errors
    /// The folder cannot be used, another process uses it, or it is from a newer version.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (journal, records) = Journal::open(dir, "outbox")?;
        let mut outbox = Self {
            journal,
            live: BTreeMap::new(),
            places: Default::default(),
            live_bytes: 0,
            next: 0,
            loaded: Vec::new(),
        };
        for record in records {
            match record.split_first() {
                Some((&ADDED, body)) => {
                    let message = decode(body).ok_or_else(unreadable)?;
                    outbox.note_added(message.id, record);
                }
                Some((&REMOVED, body)) => {
                    let id = std::str::from_utf8(body).ok().and_then(|id| id.parse().ok());
                    outbox.note_removed(&id.ok_or_else(unreadable)?);
                }
                _ => return Err(unreadable()),
            }
        }
        outbox.loaded = outbox
            .live
            .values()
            .map(|(_, record)| decode(&record[1..]).ok_or_else(unreadable))
            .collect::<io::Result<_>>()?;
        Ok(outbox)
    }

    fn note_added(&mut self, id: ClientMsgId, record: Vec<u8>) {
        self.note_removed(&id);
        self.live_bytes += record.len() as u64;
        self.places.insert(id.clone(), self.next);
        self.live.insert(self.next, (id, record));
        self.next += 1;
    }

    fn note_removed(&mut self, id: &ClientMsgId) {
        if let Some((_, record)) = self.places.remove(id).and_then(|place| self.live.remove(&place))
        {
            self.live_bytes -= record.len() as u64;
        }
    }
}

impl Outbox for FileOutbox {
    fn load(&mut self) -> io::Result<Vec<Waiting>> {
        Ok(std::mem::take(&mut self.loaded))
    }

    fn add(&mut self, messages: &[Waiting]) -> io::Result<()> {
        let records: Vec<Vec<u8>> = messages.iter().map(encode).collect();
        self.journal.append(&records, true)?;
        for (message, record) in messages.iter().zip(records) {
            self.note_added(message.id.clone(), record);
        }
        Ok(())
    }

    fn remove(&mut self, ids: &[ClientMsgId]) -> io::Result<()> {
        let record = |id: &ClientMsgId| [&[REMOVED], id.as_str().as_bytes()].concat();
        self.journal.append(&ids.iter().map(record).collect::<Vec<_>>(), false)?;
        ids.iter().for_each(|id| self.note_removed(id));
        if self.journal.wants_compaction(self.live_bytes) {
            let live: Vec<Vec<u8>> = self.live.values().map(|(_, record)| record.clone()).collect();
            self.journal.rewrite(&live)?;
        }
        Ok(())
    }
}

fn encode(message: &Waiting) -> Vec<u8> {
    let send = wire::Send {
        target: Some(match &message.to {
            Target::User(user) => wire::send::Target::ToUser(user.to_string()),
            Target::Conversation(id) => {
                wire::send::Target::Conversation(id.as_bytes().to_vec().into())
            }
        }),
        client_msg_id: message.id.to_string(),
        content_type: message.content_type.clone(),
        payload: message.payload.clone(),
        retry_after_seq: Some(message.after),
        known_seq: None,
    };
    let mut record = vec![ADDED];
    record.extend(send.encode_to_vec());
    record
}

fn decode(body: &[u8]) -> Option<Waiting> {
    let send = wire::Send::decode(body).ok()?;
    Some(Waiting {
        id: ClientMsgId::parse(&send.client_msg_id).ok()?,
        to: match send.target? {
            wire::send::Target::ToUser(user) => Target::User(UserId::parse(&user).ok()?),
            wire::send::Target::Conversation(id) => {
                Target::Conversation(ConversationId::parse(&id).ok()?)
            }
        },
        content_type: send.content_type,
        payload: send.payload,
        after: send.retry_after_seq?,
    })
}

fn unreadable() -> io::Error {
    let text = "the outbox holds a record of a newer version";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting(n: u32) -> Waiting {
        Waiting {
            id: ClientMsgId::parse(&format!("m{n}")).unwrap(),
            to: Target::User(UserId::parse("bob").unwrap()),
            content_type: String::new(),
            payload: vec![n as u8; n as usize % 50].into(),
            after: n.into(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// Whatever was added and removed, and wherever the file is cut: what is found is what
        /// stood there after some number of whole steps.
        #[test]
        fn cut_off_anywhere_it_holds_what_once_waited(
            steps in proptest::collection::vec((any::<bool>(), 0u32..8), 1..9),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("outbox");
            let mut outbox = FileOutbox::open(dir.path()).unwrap();
            let mut model: Vec<Waiting> = Vec::new();
            // Length of the file and what waits, after each step.
            let mut states = vec![(std::fs::metadata(&path).unwrap().len(), model.clone())];
            for (add, n) in steps {
                let message = waiting(n);
                model.retain(|other| other.id != message.id);
                if add {
                    outbox.add(std::slice::from_ref(&message)).unwrap();
                    model.push(message);
                } else {
                    outbox.remove(&[message.id]).unwrap();
                }
                states.push((std::fs::metadata(&path).unwrap().len(), model.clone()));
            }
            drop(outbox);
            let content = std::fs::read(&path).unwrap();
            for cut in 0..=content.len() {
                std::fs::write(&path, &content[..cut]).unwrap();
                let found = FileOutbox::open(dir.path()).unwrap().load().unwrap();
                let expected = states.iter().rev().find(|(len, _)| *len <= cut as u64);
                let expected = expected.map_or(&[][..], |(_, model)| &model[..]);
                prop_assert_eq!(&found[..], expected, "cut at {}", cut);
            }
        }
    }

    #[test]
    fn it_is_rewritten_when_most_of_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = FileOutbox::open(dir.path()).unwrap();
        outbox.add(&[waiting(1)]).unwrap();
        for n in 0..300 {
            let mut message = waiting(1000 + n);
            message.payload = vec![7; 10_000].into();
            outbox.add(std::slice::from_ref(&message)).unwrap();
            outbox.remove(&[message.id]).unwrap();
        }
        let len = std::fs::metadata(dir.path().join("outbox")).unwrap().len();
        assert!(len < 1_200_000, "{len} bytes for one message");
        drop(outbox);
        let found = FileOutbox::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(found, [waiting(1)]);
    }
}
