//! What `skein serve` says on standard output: where it serves, what to type next, and one line
//! that begins with `ready` once it serves.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::config::{Config, DEFAULT_PORT, StoreKind};
pub use crate::credentials::Development;
use crate::launch::Serving;

/// Said once the gateway serves. The last line begins with `ready`.
pub fn ready(config: &Config, development: Development, serving: Serving) -> String {
    let address = serving.clients;
    let mut out =
        format!("Skein {} serves at {address} (QUIC over UDP)\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(out, "  data   {}", config.data.display());
    if config.store.kind == StoreKind::Scylla {
        let (keyspace, points) = (&config.scylla.keyspace, &config.scylla.contact_points);
        let _ =
            writeln!(out, "  store  keyspace {keyspace} of the cluster at {}", points.join(", "));
    }
    if let Some(admin) = serving.admin {
        let _ = writeln!(out, "  admin  http://{admin}");
    }
    if development.certificate {
        out.push_str("  TLS    development certificate: good for this machine only\n");
    }
    if development.token_key {
        out.push_str("  tokens development key: whoever reads it can be anybody\n");
    }
    if development == (Development { certificate: true, token_key: true }) {
        out.push_str("\nNow chat, each in a terminal of its own:\n");
        let flags = chat_flags(config, address);
        for user in ["alice", "bob"] {
            let _ = writeln!(out, "  cargo run --release --bin skein-chat -- {user}{flags}");
        }
    }
    if address.ip().is_loopback() {
        let _ = write!(
            out,
            "\nOnly this machine can connect. For others: --listen 0.0.0.0:{} with a certificate \
             and a token\nkey of your own (`skein config default` lists [tls] and [auth]).\n",
            address.port()
        );
    }
    if let Some(warning) = exposure(development, address) {
        let _ = write!(out, "\nWARNING: {warning}.\n");
    }
    let _ = write!(out, "\nready {address}\n");
    out
}

/// Flags that the chat needs to find a gateway that is not where it looks by itself.
fn chat_flags(config: &Config, address: SocketAddr) -> String {
    let mut flags = String::new();
    if address.port() != DEFAULT_PORT || address.is_ipv6() {
        let host = if address.ip().is_unspecified() {
            "localhost".into()
        } else {
            address.ip().to_string()
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let _ = write!(flags, " --server {host}:{}", address.port());
    }
    if config.data != Config::default().data {
        let _ = write!(flags, " --data {}", shell_word(&config.data.to_string_lossy()));
    }
    flags
}

/// The text so that a shell takes it as one word.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A warning if strangers can reach a gateway that is set up for development.
pub fn exposure(development: Development, address: SocketAddr) -> Option<String> {
    if address.ip().is_loopback() || development == Development::default() {
        return None;
    }
    let what = match (development.certificate, development.token_key) {
        (true, true) => "a self-made certificate and a self-made token key",
        (true, false) => "a self-made certificate",
        _ => "a self-made token key",
    };
    Some(format!(
        "{address} can be reached from other machines, and the gateway uses {what}. They are for \
         development: set tls.cert and tls.key, and a key under [auth], before real users connect"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVELOPMENT: Development = Development { certificate: true, token_key: true };

    fn said(config: &Config, development: Development, address: &str) -> String {
        let serving = Serving { clients: address.parse().unwrap(), admin: None };
        ready(config, development, serving)
    }

    #[test]
    fn a_newcomer_is_told_what_to_type_and_ready_comes_last() {
        let said = said(&Config::default(), DEVELOPMENT, "127.0.0.1:7843");
        assert!(said.contains("\n  cargo run --release --bin skein-chat -- alice\n"), "{said}");
        assert!(said.contains("\n  cargo run --release --bin skein-chat -- bob\n"), "{said}");
        assert!(said.contains("--listen 0.0.0.0:7843"), "{said}");
        assert!(!said.contains("WARNING"), "{said}");
        assert!(said.ends_with("\nready 127.0.0.1:7843\n"), "{said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("ready")).count(), 1);
    }

    #[test]
    fn what_differs_from_the_default_is_in_the_line_to_type() {
        let config = Config { data: "it's here".into(), ..Config::default() };
        let said_here = said(&config, DEVELOPMENT, "[::1]:9");
        let line = r"skein-chat -- alice --server [::1]:9 --data 'it'\''s here'";
        assert!(said_here.contains(line), "{said_here}");
        let anywhere = said(&Config::default(), DEVELOPMENT, "0.0.0.0:9");
        assert!(anywhere.contains("-- bob --server localhost:9\n"), "{anywhere}");
    }

    #[test]
    fn development_files_on_a_public_address_are_never_silent() {
        let half = Development { token_key: true, ..Development::default() };
        for (development, address, warned) in [
            (DEVELOPMENT, "0.0.0.0:7843", true),
            (DEVELOPMENT, "[::]:7843", true),
            (DEVELOPMENT, "192.168.1.5:7843", true),
            (half, "10.0.0.1:1", true),
            (half, "[::1]:1", false),
            (DEVELOPMENT, "127.9.9.9:1", false),
            (Development::default(), "0.0.0.0:7843", false),
        ] {
            let said = said(&Config::default(), development, address);
            assert_eq!(said.contains("WARNING"), warned, "{said}");
            assert_eq!(exposure(development, address.parse().unwrap()).is_some(), warned);
        }
    }
}
