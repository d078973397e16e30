//! A fresh client that has nothing and knows no SDK: it lists a user's conversations and pulls
//! them from the first message on.

use std::path::Path;

use skein_protocol::wire::{self, client_frame, server_frame};
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, UserId};

use super::history::{Device, Entry, Found, Name};
use crate::support::process::Gateway;
use crate::support::raw::Raw;

/// Everything that the gateway has for this user.
///
/// # Errors
/// The gateway could not tell; a store that does not answer is no broken promise.
pub fn read_all(gateway: &Gateway, data: &Path, user: &UserId) -> Result<Vec<Found>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = gateway.token(user.as_str());
        let raw = Raw::login(gateway.address, data, &token, "auditor").await;
        let mut found = Vec::new();
        for head in heads(&raw).await? {
            found.push(Found {
                conversation: ConversationId::parse(&head.conversation).unwrap(),
                head: head.seq,
                cursors: cursors(user, &head),
                log: pull(&raw, &head).await?,
            });
        }
        Ok(found)
    })
}

async fn heads(raw: &Raw) -> Result<Vec<wire::Head>, String> {
    let request = client_frame::Kind::HeadsRequest(wire::HeadsRequest::default());
    let pages = raw.try_ask(request).await?.into_iter();
    let heads: Result<Vec<_>, _> = pages
        .map(|page| match page {
            server_frame::Kind::HeadsPage(page) => Ok(page.heads),
            other => Err(format!("{other:?} instead of heads")),
        })
        .collect();
    Ok(heads?.into_iter().flatten().collect())
}

fn cursors(user: &UserId, head: &wire::Head) -> Vec<(UserId, u64, u64)> {
    let own = (user.clone(), head.delivered, head.read);
    let others = head.members.iter();
    let others = others.map(|m| (UserId::parse(&m.user).unwrap(), m.delivered, m.read));
    std::iter::once(own).chain(others).collect()
}

async fn pull(raw: &Raw, head: &wire::Head) -> Result<Vec<Entry>, String> {
    let target = wire::range::Target::Conversation(head.conversation.clone());
    let range = wire::Range { target: Some(target), from: 1, ..Default::default() };
    let request = wire::PullRequest { ranges: vec![range] };
    let mut log = Vec::new();
    for page in raw.try_ask(client_frame::Kind::PullRequest(request)).await? {
        match page {
            server_frame::Kind::PullPage(page) => log.extend(page.messages.iter().map(entry)),
            other => return Err(format!("{other:?} instead of messages")),
        }
    }
    Ok(log)
}

fn entry(message: &wire::Message) -> Entry {
    let user = UserId::parse(&message.sender).unwrap();
    let device = Device { user, name: DeviceId::parse(&message.sender_device).unwrap() };
    let id = ClientMsgId::parse(&message.client_msg_id).unwrap();
    let text = String::from_utf8_lossy(&message.payload).into_owned();
    Entry { seq: message.seq, name: Name { device, id }, text }
}
