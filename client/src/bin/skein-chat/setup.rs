//! From the command line to a running client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use skein_client::{Builder, Client, Events, FileOutbox};

use crate::args::Args;
use crate::dev;

/// How to start a gateway here.
pub(crate) const START: &str = "cargo run --release --bin skein -- serve";

/// What to do when there is no connection for this reason.
pub(crate) fn advice(reason: &str) -> String {
    if reason.contains("certificate") {
        "say which certificate to trust with --ca FILE, or the name in it with --server-name NAME"
            .into()
    } else {
        format!("if there is no gateway, start one with `{START}`")
    }
}

/// A person looks at the screen: notice a dead gateway soon. Costs a packet now and then.
const HEARTBEAT: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest bound of the wait before a reconnect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Starts the client, or says what to do about it.
pub(crate) async fn start(args: &Args) -> Result<(Client, Events), String> {
    let builder = Client::builder()
        .server(&args.server)
        .user(args.user.clone())
        .device(args.device.clone())
        .reconnect(RECONNECT.0, RECONNECT.1)
        .rules(|rules| {
            rules.platform = format!("skein-chat/{}", env!("CARGO_PKG_VERSION"));
            rules.max_heartbeat = Some(HEARTBEAT);
            rules.ping_timeout = PING_TIMEOUT;
        });
    let builder = trust(builder, args)?;
    let builder = credentials(builder, args)?;
    let builder = keep(builder, args);
    builder.connect().await.map_err(|error| error.to_string())
}

/// The certificate to trust: the one that is named, else the development certificate, else, for
/// those who bring a token, what the system trusts.
fn trust(builder: Builder, args: &Args) -> Result<Builder, String> {
    let named = |builder: Builder| match &args.server_name {
        Some(name) => builder.server_name(name),
        None => builder,
    };
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("--ca {}: {error}", path.display()))
    };
    if let Some(path) = &args.ca {
        return Ok(named(builder.ca_pem(read(path)?)));
    }
    let path = dev::ca_file(&args.data);
    match std::fs::read(&path) {
        Ok(pem) => Ok(named(builder.server_name(dev::SERVER_NAME).ca_pem(pem))),
        Err(_) if args.token.is_some() => Ok(named(builder)),
        Err(error) => Err(format!(
            "no development certificate: {}: {error}\n\
             Start a gateway with `{START}`, say where its data is with --data DIR, \
             or give --ca FILE and --token T for a gateway elsewhere.",
            path.display()
        )),
    }
}

fn credentials(builder: Builder, args: &Args) -> Result<Builder, String> {
    if let Some(token) = &args.token {
        return Ok(builder.token(token));
    }
    let (data, user, device) = (args.data.clone(), args.user.clone(), args.device.clone());
    dev::token(&data, &user, &device).map_err(|error| {
        format!(
            "no token can be made: {error}\n\
             Start a gateway with `{START}`, say where its data is with --data DIR, \
             or give a token: --token \"$(skein token --user {user})\"."
        )
    })?;
    Ok(builder.token_source(move || {
        let token = dev::token(&data, &user, &device);
        async move { token }
    }))
}

/// Messages that are not acknowledged yet survive in the data folder. If it cannot be used they
/// live as long as this program.
fn keep(builder: Builder, args: &Args) -> Builder {
    let dir = state_dir(args);
    match FileOutbox::open(&dir) {
        Ok(outbox) => builder.outbox(outbox),
        Err(error) => {
            eprintln!("skein-chat: unacknowledged messages are not kept on disk: {error}");
            builder
        }
    }
}

/// `DATA/chat/USER@DEVICE`, with what a file name may not contain spelt out.
fn state_dir(args: &Args) -> PathBuf {
    let mut name = String::new();
    for byte in args.user.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    args.data.join("chat").join(format!("{name}@{}", args.device))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_user_is_a_safe_file_name() {
        let args = Args::parse_from(["skein-chat", "../a b|ö", "--data", "d"]);
        assert_eq!(state_dir(&args), Path::new("d/chat/..%2Fa%20b%7C%C3%B6@chat"));
    }
}
