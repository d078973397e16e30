//! A bot that answers every message with the same text.
//!
//! ```text
//! cargo run -p skein-client --example echo -- "$(skein token --user echo)" ./skein-data/dev/ca.pem
//! ```
//! Its outbox and positions are in `./echo-bot`: stopped and started again, it answers what came
//! meanwhile, each message once.

use skein_client::{Client, ClientMsgId, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(token), Some(ca)) = (args.next(), args.next()) else {
        return Err("usage: echo TOKEN CA_FILE".into());
    };
    let (client, mut events) = Client::builder()
        .server("127.0.0.1:7843")
        .server_name("localhost")
        .ca_pem(std::fs::read(ca)?)
        .token(token)
        .device("bot".parse()?)
        .data_dir("./echo-bot".as_ref())?
        .connect()
        .await?;

    while let Some(event) = events.next().await {
        match event {
            Event::Connected { user, .. } => println!("answering as {user}"),
            Event::Message { message, .. } if message.device.as_str() != "bot" => {
                println!("{}: {}", message.sender, message.text().unwrap_or("(no text)"));
                // Named after the message that it answers: a bot that is stopped between sending
                // and remembering sends it again, and the gateway stores it once.
                let id = format!("echo-{}-{}", message.conversation, message.seq);
                let id = ClientMsgId::parse(&id)?;
                let text = message.text().unwrap_or("?").to_owned();
                client.send_as(id, message.sender, text).await?;
            }
            Event::Disconnected { reason, retry_in: None, .. } => return Err(reason.into()),
            _ => {}
        }
    }
    Ok(())
}
