//! `skein ctl`: asks a running gateway, or tells it, over its admin listener.
//!
//! Standard output carries a table with tabs between its columns, or with `--json` what the gateway
//! answered; lists then have an object a line.

mod args;
mod http;
mod table;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;
use super::exit::print;
use super::settings::Settings;
use crate::admin::DOCUMENTED_PORT;
use crate::admin_token;
use crate::config::Config;
pub(super) use args::Args;
use args::{Command, Kicked, Sessions, Which, Whom};
use http::Gateway;

/// How often it is looked whether everybody has gone.
const LOOK: Duration = Duration::from_millis(250);

const SESSION: &[&str] = &[
    "id",
    "user",
    "device",
    "address",
    "transport",
    "state",
    "idle_ms",
    "rtt_ms",
    "lost_packets",
    "outbox_bytes",
    "behind",
    "bytes_in",
    "bytes_out",
];
const BLOCK: &[&str] = &["user", "address", "reason", "since", "until"];
const CHANGE: &[&str] = &["what", "key", "from", "to"];
const SHARD: &[&str] =
    &["shard", "ended", "connections", "handshaking", "mail_waiting", "outbox_bytes"];

/// Sessions that are fetched at a time.
const PAGE: usize = 1000;

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let out = Out { json: args.json };
    let config = config(&args)?;
    let address = address(&args, &config);
    match args.command {
        Command::Alive => {
            Gateway::new(address, None).alive()?;
            return out.one(&json!({ "alive": true }));
        }
        Command::Ready => return out.one(&Gateway::new(address, None).get("/readyz", &[])?),
        _ => {}
    }
    let gateway = Gateway::new(address, Some(token(&args, &config)?));
    match args.command {
        Command::Alive | Command::Ready => Ok(()),
        Command::Status => out.one(&gateway.get("/v1/status", &[])?),
        Command::Sessions(Sessions::List { which, limit }) => list(&gateway, &out, which, limit),
        Command::Sessions(Sessions::Count { which }) => {
            out.value(&gateway.get("/v1/sessions/count", &which.query())?, "count")
        }
        Command::Sessions(Sessions::Show { id }) => {
            out.one(&gateway.get(&format!("/v1/sessions/{id}"), &[])?)
        }
        Command::Kick { whom, reason, reconnect } => {
            let Kicked { session, user, device, address } = whom;
            let session = session.map(|id| id.to_string());
            let body = json!({
                "session": session, "user": user, "device": device, "address": address,
                "reason": reason, "reconnect": reconnect
            });
            out.one(&gateway.post("/v1/kick", &body)?)
        }
        Command::Block { whom, reason, length } => {
            let Whom { user, address } = whom;
            let body = json!({ "user": user, "address": address, "reason": reason, "for": length });
            out.one(&gateway.post("/v1/blocks", &body)?)
        }
        Command::Unblock { whom } => {
            let all = [("user", whom.user), ("address", whom.address)];
            let query: Vec<_> = all.into_iter().filter_map(|(name, v)| Some((name, v?))).collect();
            gateway.delete("/v1/blocks", &query).map(drop)
        }
        Command::Blocks => out.many(&gateway.get("/v1/blocks", &[])?["blocks"], BLOCK),
        Command::Drain { over, reconnect_delay, wait } => {
            let body = json!({ "over": over, "reconnect_delay": reconnect_delay });
            let state = gateway.post("/v1/drain", &body)?;
            match wait {
                None => out.one(&state),
                Some(wait) => wait_until_empty(&gateway, &out, wait),
            }
        }
        Command::Undrain => out.one(&gateway.delete("/v1/drain", &[])?),
        Command::Notice { text, user } => {
            out.one(&gateway.post("/v1/notice", &json!({ "text": text, "user": user }))?)
        }
        Command::Reload => reload(&gateway, &out),
        Command::Log { level: None } => out.value(&gateway.get("/v1/log", &[])?, "level"),
        Command::Log { level: Some(level) } => {
            out.value(&gateway.put("/v1/log", &json!({ "level": level }))?, "level")
        }
        Command::Shards { shard: None } => {
            out.many(&gateway.get("/v1/shards", &[])?["shards"], SHARD)
        }
        Command::Shards { shard: Some(shard) } => {
            out.one(&gateway.get(&format!("/v1/shards/{shard}"), &[])?)
        }
        Command::Top { by, over, limit } => {
            let query = [("by", by.name().into()), ("over", over), ("limit", limit.to_string())];
            let top = gateway.get("/v1/top", &query)?;
            let columns = [&["value"], SESSION].concat();
            // A talker is a number and a session; in a table they stand side by side.
            let flat = |talker: &Value| {
                let mut row = talker["session"].clone();
                row["value"] = talker["value"].clone();
                row
            };
            let talkers: Vec<Value> =
                top["talkers"].as_array().into_iter().flatten().map(flat).collect();
            out.many(&Value::Array(talkers), &columns)
        }
    }
}

/// The gateway's own configuration says where it is and how to be let in. A mistake in it does not
/// keep an operator from a gateway that runs: what is good in it is used.
fn config(args: &Args) -> Result<Config, Failure> {
    if args.admin.is_some() && args.token_file.is_some() {
        return Ok(Config::default());
    }
    let settings =
        Settings { config: args.config.clone(), data: args.data.clone(), set: Vec::new() };
    let (loaded, problems) = settings.sources([])?.examine();
    if !problems.is_empty() {
        eprintln!(
            "skein: the configuration has mistakes ({}; `skein config check` tells all): what is \
             good in it is used",
            problems.len()
        );
    }
    Ok(loaded.config)
}

fn address(args: &Args, config: &Config) -> SocketAddr {
    let documented = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DOCUMENTED_PORT);
    reachable(args.admin.or(config.admin.listen).unwrap_or(documented))
}

fn token(args: &Args, config: &Config) -> Result<String, Failure> {
    let path = args.token_file.clone().unwrap_or_else(|| admin_token::path(config));
    admin_token::read(&path).map_err(|error| {
        Failure::Failed(format!(
            "{error}; name the gateway's data folder with --data, or the file with --token-file"
        ))
    })
}

/// An address on which something listens is not always one that can be connected to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn reload(gateway: &Gateway, out: &Out) -> Result<(), Failure> {
    let done = gateway.post("/v1/reload", &json!({}))?;
    if out.json {
        return out.one(&done);
    }
    let mut rows = Vec::new();
    for (list, what) in [("changed", "changed"), ("needs_restart", "needs a restart")] {
        for change in done[list].as_array().into_iter().flatten() {
            let mut row = change.clone();
            row["what"] = what.into();
            rows.push(row);
        }
    }
    if done["new_certificates"] == true {
        rows.push(json!({ "what": "changed", "key": "certificates" }));
    }
    for remark in done["remarks"].as_array().into_iter().flatten() {
        // Not part of the table.
        let _ = writeln!(std::io::stderr(), "skein: {}", table::cell(remark));
    }
    out.many(&Value::Array(rows), CHANGE)
}

fn list(gateway: &Gateway, out: &Out, which: Which, limit: Option<usize>) -> Result<(), Failure> {
    let asked = which.query();
    let mut left = limit.unwrap_or(usize::MAX);
    let mut after = None;
    out.header(SESSION)?;
    while left > 0 {
        let mut query = asked.clone();
        query.push(("limit", left.min(PAGE).to_string()));
        query.extend(after.take().map(|after| ("after", after)));
        let page = gateway.get("/v1/sessions", &query)?;
        let sessions = page["sessions"].as_array().map_or(&[][..], Vec::as_slice);
        let sessions = &sessions[..sessions.len().min(left)];
        out.rows(sessions, SESSION)?;
        left -= sessions.len();
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    Ok(())
}

fn wait_until_empty(gateway: &Gateway, out: &Out, wait: Duration) -> Result<(), Failure> {
    let until = Instant::now() + wait;
    loop {
        let state = gateway.get("/v1/drain", &[])?;
        if state["sessions"] == 0 {
            return out.one(&state);
        }
        if Instant::now() >= until {
            let left = &state["sessions"];
            return Err(Failure::Failed(format!("{left} sessions are still here")));
        }
        std::thread::sleep(LOOK);
    }
}

/// How answers are printed.
struct Out {
    json: bool,
}

impl Out {
    /// One object.
    fn one(&self, value: &Value) -> Result<(), Failure> {
        if self.json { print(&format!("{value}\n")) } else { print(&table::fields(value)) }
    }

    /// One field of it, where the rest says nothing.
    fn value(&self, value: &Value, field: &str) -> Result<(), Failure> {
        if self.json {
            self.one(value)
        } else {
            print(&format!("{}\n", table::cell(&value[field])))
        }
    }

    fn many(&self, rows: &Value, columns: &[&str]) -> Result<(), Failure> {
        self.header(columns)?;
        self.rows(rows.as_array().map_or(&[][..], Vec::as_slice), columns)
    }

    fn header(&self, columns: &[&str]) -> Result<(), Failure> {
        if self.json { Ok(()) } else { print(&(columns.join("\t") + "\n")) }
    }

    fn rows(&self, rows: &[Value], columns: &[&str]) -> Result<(), Failure> {
        let line = |row: &Value| match self.json {
            true => format!("{row}\n"),
            false => table::row(row, columns),
        };
        print(&rows.iter().map(line).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_connects_to_an_address_that_there_is() {
        for (listen, connect) in [
            ("0.0.0.0:7844", "127.0.0.1:7844"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:7844", "10.0.0.1:7844"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), connect);
        }
    }
}
