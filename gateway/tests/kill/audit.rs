//! A fresh client that has nothing and knows no SDK: it lists a user's conversations and pulls
//! them from the first message on.

use std::path::Path;

use skein_protocol::wire::{self, client_frame, server_frame};
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, UserId};

use crate::history::{Device, Entry, Found, Name};
use crate::support::process::Gateway;
use crate::support::raw::Raw;

/// Everything that the gateway has for this user.
pub fn read_all(gateway: &Gateway, data: &Path, user: &UserId) -> Vec<Found> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = gateway.token(user.as_str());
        let raw = Raw::login(gateway.address, data, &token, "auditor").await;
        let mut found = Vec::new();
        for head in heads(&raw).await {
            found.push(Found {
                conversation: ConversationId::parse(&head.conversation).unwrap(),
                head: head.seq,
                cursors: cursors(user, &head),
                log: pull(&raw, &head).await,
            });
        }
        found
    })
}

async fn heads(raw: &Raw) -> Vec<wire::Head> {
    let request = client_frame::Kind::HeadsRequest(wire::HeadsRequest::default());
    let pages = raw.ask(request).await.into_iter();
    let heads = pages.map(|page| match page {
        server_frame::Kind::HeadsPage(page) => page.heads,
        other => panic!("{other:?} instead of heads"),
    });
    heads.flatten().collect()
}

fn cursors(user: &UserId, head: &wire::Head) -> Vec<(UserId, u64, u64)> {
    let own = (user.clone(), head.delivered, head.read);
    let others = head.members.iter();
    let others = others.map(|m| (UserId::parse(&m.user).unwrap(), m.delivered, m.read));
    std::iter::once(own).chain(others).collect()
}

async fn pull(raw: &Raw, head: &wire::Head) -> Vec<Entry> {
    let target = wire::range::Target::Conversation(head.conversation.clone());
    let range = wire::Range { target: Some(target), from: 1, ..Default::default() };
    let request = wire::PullRequest { ranges: vec![range] };
    let mut log = Vec::new();
    for page in raw.ask(client_frame::Kind::PullRequest(request)).await {
        let server_frame::Kind::PullPage(page) = page else { panic!("{page:?}") };
        log.extend(page.messages.iter().map(entry));
    }
    log
}

fn entry(message: &wire::Message) -> Entry {
    let user = UserId::parse(&message.sender).unwrap();
    let device = Device { user, name: DeviceId::parse(&message.sender_device).unwrap() };
    let id = ClientMsgId::parse(&message.client_msg_id).unwrap();
    let text = String::from_utf8_lossy(&message.payload).into_owned();
    Entry { seq: message.seq, name: Name { device, id }, text }
}
