//! What values about a cluster may be.

use skein_storage::scylla::is_keyspace_name;
use skein_storage::scylla::schema::Replication;

use super::rule::{Input, Rule, quoted};

/// Most nodes that are worth naming.
const MAX_HOSTS: usize = 64;

/// A list of nodes, `HOST` or `HOST:PORT`; in the environment with commas between them.
pub(crate) struct Hosts;

impl Rule<Vec<String>> for Hosts {
    fn read(&self, input: &Input) -> Result<Vec<String>, String> {
        let help = || {
            format!(
                "must be a list such as [\"10.0.0.1\", \"db.example.net:9042\"], at most \
                 {MAX_HOSTS} long"
            )
        };
        let hosts: Vec<String> = match input {
            Input::Toml(value) => value.clone().try_into().map_err(|_| help())?,
            // As in a file; not to be taken for "[::1]:9042".
            Input::Text(text) if text.starts_with('[') && text.ends_with(']') => {
                toml::de::ValueDeserializer::parse(text)
                    .and_then(serde::Deserialize::deserialize)
                    .map_err(|_| help())?
            }
            Input::Text(text) if text.trim().is_empty() => Vec::new(),
            Input::Text(text) => text.split(',').map(|host| host.trim().to_owned()).collect(),
        };
        let is_good = hosts.len() <= MAX_HOSTS && hosts.iter().all(|host| is_host(host));
        if is_good { Ok(hosts) } else { Err(help()) }
    }
    fn print(&self, value: &Vec<String>) -> String {
        let hosts: Vec<String> = value.iter().map(|host| quoted(host)).collect();
        format!("[{}]", hosts.join(", "))
    }
    fn unit(&self) -> &'static str {
        "list of nodes, HOST or HOST:PORT"
    }
    fn range(&self) -> String {
        format!("port 9042 if none is given, at most {MAX_HOSTS}")
    }
}

/// A name or an address, with a port or without.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let (name, port) = text.split_once(':').unwrap_or((text, "9042"));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !name.is_empty()
        && name.len() <= 253
        && name.chars().all(is_plain)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A keyspace that needs no quotes.
pub(crate) struct Keyspace;

impl Rule<String> for Keyspace {
    fn read(&self, input: &Input) -> Result<String, String> {
        match input.text() {
            Some(text) if is_keyspace_name(text) => Ok(text.to_owned()),
            _ => Err(format!("must be {}", self.range())),
        }
    }
    fn print(&self, value: &String) -> String {
        quoted(value)
    }
    fn unit(&self) -> &'static str {
        "name"
    }
    fn range(&self) -> String {
        "a lower-case letter, then lower-case letters, digits and underscores, 48 at most".into()
    }
}

/// How many replicas, everywhere or by data centre.
pub(crate) struct Replicas;

impl Rule<Replication> for Replicas {
    fn read(&self, input: &Input) -> Result<Replication, String> {
        let number = input.integer().map(|number| number.to_string());
        let text = number.as_deref().or(input.text()).unwrap_or_default();
        text.parse().map_err(|why| format!("must be \"3\" or \"DATA_CENTRE:3,...\": {why}"))
    }
    fn print(&self, value: &Replication) -> String {
        quoted(&value.to_string())
    }
    fn unit(&self) -> &'static str {
        "replicas"
    }
    fn range(&self) -> String {
        "\"3\": in each data centre; \"dc1:3,dc2:2\": in those that are named".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Result<Vec<String>, String> {
        Hosts.read(&Input::Text(text.into()))
    }

    #[test]
    fn nodes_are_names_or_addresses() {
        let one = |host: &str| Ok(vec![host.to_owned()]);
        for good in ["10.0.0.1", "10.0.0.1:9042", "::1", "[::1]:9042", "db-1.example.net", "db:1"] {
            assert_eq!(hosts(good), one(good));
        }
        assert_eq!(hosts("a, b:9043"), Ok(vec!["a".into(), "b:9043".into()]));
        assert_eq!(hosts("[\"a\", \"b\"]"), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(hosts("[::1]:1,b"), Ok(vec!["[::1]:1".into(), "b".into()]));
        assert_eq!(hosts(""), Ok(Vec::new()));
        for bad in ["a b", "a,", ":9042", "a:0", "a:b", "a:99999", "http://a", "[1]", "a/b"] {
            assert!(hosts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replication_may_be_a_number() {
        let read = |input| Replicas.read(&input).map(|read| read.to_string());
        assert_eq!(read(Input::Toml(toml::Value::Integer(2))), Ok("2".into()));
        assert_eq!(read(Input::Text("dc1:3".into())), Ok("dc1:3".into()));
        assert!(read(Input::Text("0".into())).is_err());
    }
}
