use std::collections::HashSet;
use std::ffi::OsString;
use std::time::Duration;

use proptest::prelude::*;

use super::rule::Input;
use super::*;

fn load(text: &str) -> Result<Config, Problems> {
    Sources::new().text("f.toml", text).read().map(|loaded| loaded.config)
}

/// Every problem as a line.
fn problems(text: &str) -> Vec<String> {
    load(text).unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn environment(variables: &[(&str, &str)]) -> Sources {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), value.into()));
    Sources::new().environment(variables)
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    assert_eq!(load(&default_file()), Ok(Config::default()));
    assert_eq!(load(""), Ok(Config::default()));
}

#[test]
fn a_payload_fits_into_one_write_to_a_cluster() {
    let text = |kind: &str, payload: &str| {
        format!(
            "[store]\nkind = \"{kind}\"\n[scylla]\ncontact_points = [\"a\"]\n[limits]\n\
             max_frame_bytes = \"16MiB\"\nmax_payload_bytes = \"{payload}\"\n\
             outbox_bytes = \"32MiB\"\nlane_bytes = \"1GiB\"\n"
        )
    };
    assert!(load(&text("embedded", "10MiB")).is_ok());
    assert!(load(&text("scylla", "8191KiB")).is_ok());
    let told = problems(&text("scylla", "8192KiB"));
    assert_eq!(told.len(), 1, "{told:?}");
    for part in ["`limits.max_payload_bytes` = 8MiB", "\"scylla\"", "at most 8191KiB"] {
        assert!(told[0].contains(part), "{told:?}");
    }
}

#[test]
fn every_key_reads_what_it_prints() {
    let mut paths = HashSet::new();
    for key in table::keys() {
        assert!(paths.insert(key.path));
        assert!(!key.doc.is_empty() && !(key.unit)().is_empty(), "{}", key.path);
        let printed = (key.print)(&Config::default());
        let text = match key.path.split_once('.') {
            Some((section, name)) => format!("[{section}]\n{name} = {printed}\n"),
            None => format!("{} = {printed}\n", key.path),
        };
        assert_eq!(load(&text), Ok(Config::default()), "{text}");
    }
}

#[test]
fn every_default_is_inside_its_own_range_as_text_too() {
    for key in table::keys() {
        let printed = (key.print)(&Config::default());
        let value: toml::Table = format!("v = {printed}").parse().unwrap();
        let text = value["v"].as_str().map_or(printed.clone(), ToOwned::to_owned);
        let mut config = Config::default();
        assert_eq!((key.set)(&mut config, &Input::Text(text)), Ok(()), "{}", key.path);
        assert_eq!(config, Config::default(), "{}", key.path);
    }
}

/// The store has defaults of its own for those who use it without a gateway.
#[test]
fn the_store_and_the_gateway_agree_on_defaults() {
    let ours = Config::default().store;
    let its = skein_storage::embedded::EmbeddedOptions::default();
    assert_eq!(ours.cache_bytes, its.cache_bytes);
    assert_eq!(ours.memtable_bytes, its.memtable_bytes);
    assert_eq!(ours.journal_bytes, its.journal_bytes);
    assert_eq!(ours.reserve_bytes, its.reserve_bytes);
    assert_eq!(ours.read_threads, its.read_threads);
    assert_eq!(ours.compaction_threads, its.compaction_threads);
}

#[test]
fn all_problems_come_at_once_in_order_with_their_lines() {
    let text = "listn = \"127.0.0.1:1\"\nshards = -1\n\n[limits]\nmax_entries = 0\n\
                max_frame_byte = 1\nmax_sessions = \"many\"\n[sesion]\nx = 1\n[drain]\n\
                deadline = 5\n[log]\nformat = \"yaml\"\n";
    let found = problems(text);
    let expected = [
        "f.toml:1: unknown key `listn`; the nearest right one is `listen`",
        "f.toml:2: `shards` = -1: must be 0 to 256",
        "f.toml:5: `limits.max_entries` = 0: must be 1 to 4096",
        "f.toml:6: unknown key `limits.max_frame_byte`; the nearest right one is \
         `limits.max_frame_bytes`",
        "f.toml:7: `limits.max_sessions` = \"many\": must be a whole number",
        "f.toml:8: unknown section [sesion]; the nearest right one is [session]",
        "f.toml:11: `drain.deadline` = 5: must be a time with its unit, such as \"25s\", \
         \"500ms\" or \"1h 30m\"",
        "f.toml:13: `log.format` = \"yaml\": must be one of \"text\", \"json\"",
    ];
    assert_eq!(found, expected);
}

#[test]
fn values_that_do_not_go_together_are_told_beside_other_problems() {
    let text = "shards = -1\n[tls]\ncert = \"a\"\n[limits]\nmax_payload_bytes = \"64KiB\"\n";
    let found = problems(text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("f.toml:1: `shards`"), "{found:?}");
    assert!(found[1].starts_with("f.toml:5: `limits.max_payload_bytes` = 64KiB"), "{found:?}");
    assert!(found[2].starts_with("f.toml:3: `tls.cert` is given without `tls.key`"), "{found:?}");
    // Not what comes of a default in place of a wrong value or of a misspelt key.
    for text in [
        "[limits]\nmax_payload_bytes = \"64KiB\"\nmax_frame_bytes = \"128\"\n",
        "[limits]\nmax_payload_bytes = \"64KiB\"\nmax_frame_byte = \"128KiB\"\n",
        "[tls]\ncert = \"a\"\nkye = \"b\"\n",
        "[tls]\ncert = \"a\"\nkey = \n",
    ] {
        assert_eq!(problems(text).len(), 1, "{text}");
    }
}

#[test]
fn the_beginning_of_a_name_leads_to_it_in_whatever_section() {
    let found = problems("[limits]\nheartbeat = \"3s\"\n[session]\nslow = 1\n");
    assert!(found[0].ends_with("`session.heartbeat_interval`"), "{found:?}");
    assert!(found[1].ends_with("`session.slow_consumer_timeout`"), "{found:?}");
}

#[test]
fn broken_toml_is_told_with_its_line_and_the_rest_is_still_read() {
    let found = problems("listen = \nshards = 1000\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("f.toml:1: not valid TOML"), "{found:?}");
    assert_eq!(found[1], "f.toml:2: `shards` = 1000: must be 0 to 256");
    assert!(problems("shards = 1\nshards = 2\n")[0].starts_with("f.toml:2: not valid TOML"));
    assert!(problems("[limits\n")[0].starts_with("f.toml:1:"));
    assert_eq!(problems("limits = 3"), ["f.toml:1: `limits` is a section: write [limits]"]);
}

#[test]
fn a_key_in_the_wrong_section_is_found() {
    let found = problems("max_sessions = 5\n[session]\nmax_devices_per_user = 1\n");
    assert!(found[0].ends_with("is `limits.max_sessions`"), "{found:?}");
    assert!(found[1].ends_with("is `limits.max_devices_per_user`"), "{found:?}");
}

#[test]
fn people_write_sizes_and_times_as_they_speak() {
    let config = load(
        "[limits]\nmax_frame_bytes = \"1 MiB\"\noutbox_bytes = 3_000_000\nlane_bytes = \"1.5GiB\"\n\
         [session]\nheartbeat_interval = \"1m 30s\"\n[drain]\ndeadline = \"500ms\"\n",
    )
    .unwrap();
    assert_eq!(config.limits.max_frame_bytes, 1 << 20);
    assert_eq!(config.limits.outbox_bytes, 3_000_000);
    assert_eq!(config.limits.lane_bytes, 3 << 29);
    assert_eq!(config.session.heartbeat_interval, Duration::from_secs(90));
    assert_eq!(config.drain.deadline, Duration::from_millis(500));
    let found = problems("[limits]\nmax_frame_bytes = \"17MiB\"\n");
    assert_eq!(found, ["f.toml:2: `limits.max_frame_bytes` = \"17MiB\": must be 4KiB to 16MiB"]);
}

#[test]
fn flags_are_stronger_than_the_environment_and_that_than_the_file() {
    let file = "shards = 1\nlanes = 1\ndedup_window = 1\n";
    let loaded = environment(&[("SKEIN_LANES", "2"), ("SKEIN_DEDUP_WINDOW", "2")])
        .text("f.toml", file)
        .flag("--set", "dedup_window", "3")
        .read()
        .unwrap();
    let config = loaded.config;
    assert_eq!((config.shards, config.lanes, config.dedup_window), (1, 2, 3));
    // A wrong value is told even where a stronger source hides it.
    let found = Sources::new().text("f.toml", "lanes = 0").flag("--set", "lanes", "3").read();
    assert_eq!(found.unwrap_err().0.len(), 1);
}

#[test]
fn variables_reach_every_key() {
    let loaded = environment(&[
        ("SKEIN_LIMITS__MAX_SESSIONS", "5_000"),
        ("SKEIN_AUTH__KEYS", "[{ file = 'a.pem', alg = 'ES256', kid = '1' }, { file = 'b' }]"),
        ("SKEIN_AUTH__REQUIRE_EXP", "false"),
        ("SKEIN_LOG", "debug"),
        ("PATH", "/bin"),
    ])
    .read()
    .unwrap();
    assert_eq!(loaded.config.limits.max_sessions, 5000);
    assert_eq!(loaded.config.auth.keys.len(), 2);
    assert_eq!(loaded.config.auth.keys[0].alg, Some(Alg::ES256));
    assert!(!loaded.config.auth.require_exp);
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!(loaded.remarks, Vec::<String>::new());
    let both = environment(&[("SKEIN_LOG__LEVEL", "warn"), ("SKEIN_LOG", "debug")]);
    assert_eq!(both.read().unwrap().config.log.level, "warn");
}

#[test]
fn a_misspelt_variable_is_an_error_and_one_of_others_is_not() {
    for (name, right) in [
        ("SKEIN_LISTN", "SKEIN_LISTEN"),
        ("SKEIN_LIMITS__MAX_SESSION", "SKEIN_LIMITS__MAX_SESSIONS"),
        ("SKEIN_LIMIT__MAX_SESSIONS", "SKEIN_LIMITS__MAX_SESSIONS"),
    ] {
        let error = environment(&[(name, "1")]).read().unwrap_err().to_string();
        assert!(error.starts_with(&format!("environment {name}:")), "{error}");
        assert!(error.ends_with(right), "{error}");
    }
    // What Kubernetes sets for a service called skein.
    let loaded = environment(&[
        ("SKEIN_SERVICE_HOST", "10.0.0.1"),
        ("SKEIN_PORT", "udp://10.0.0.1:7843"),
        ("SKEIN_PORT_7843_UDP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(loaded.read().unwrap().remarks.len(), 3);
}

#[test]
fn an_admin_listener_that_others_reach_is_remarked_on() {
    let remarks = |listen: &str| {
        let text = format!("[admin]\nlisten = \"{listen}\"\n");
        Sources::new().text("f.toml", &text).read().unwrap().remarks
    };
    for inside in ["", "127.0.0.1:7844", "[::1]:7844"] {
        assert_eq!(remarks(inside), Vec::<String>::new());
    }
    for outside in ["0.0.0.0:7844", "[::]:7844", "10.0.0.1:7844"] {
        let said = remarks(outside);
        assert_eq!(said.len(), 1, "{said:?}");
        let begin = format!("f.toml:2: `admin.listen` = {outside} can be reached");
        assert!(said[0].starts_with(&begin), "{said:?}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_told() {
    let found = problems("[limits]\nmax_frame_bytes = \"32KiB\"\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("at most 31KiB"), "{found:?}");
    let found = problems("[limits]\nmax_frame_bytes = \"8MiB\"\nlane_bytes = \"1MiB\"\n");
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("defaults: `limits.outbox_bytes` = 256KiB"), "{found:?}");
    assert!(found[0].ends_with("16MiB"), "{found:?}");
    assert!(found[1].starts_with("f.toml:3: `limits.lane_bytes` = 1MiB"), "{found:?}");
    assert!(found[1].ends_with("at least 128MiB"), "{found:?}");
    let found = problems("[limits]\nmax_unacked_sends = 4096\n");
    assert!(found[0].contains("`limits.max_unacked_sends` = 4096"), "{found:?}");
    assert!(found[0].ends_with("at least 4MiB"), "{found:?}");
    let found = problems("[tls]\ncert = \"a.pem\"\n");
    assert!(found[0].contains("without `tls.key`"), "{found:?}");
}

#[test]
fn a_misspelt_log_level_does_not_pass_for_the_name_of_a_part() {
    for right in ["off", "info,skein_transport=debug", "warn,a::b=trace,[span]=debug"] {
        assert!(load(&format!("log.level = \"{right}\"")).is_ok(), "{right}");
    }
    let wrong =
        ["inof", "info,debgu", "", "info,x=loud", "nonsense=", "info,quinn=", "quinn=debug"];
    for wrong in wrong {
        assert!(load(&format!("log.level = \"{wrong}\"")).is_err(), "{wrong}");
    }
}

#[test]
fn names_of_files_need_no_special_letters() {
    for name in ["C:\\keys\\a b.pem", "ключ \"1\".pem", "#.pem"] {
        let key = TokenKey::of(name);
        let auth = AuthConfig { keys: vec![key.clone()], ..AuthConfig::default() };
        let config = Config { auth, data: name.into(), ..Config::default() };
        for path in ["auth.keys", "data"] {
            let entry = table::find(path).unwrap();
            let text = format!("{path} = {}", (entry.print)(&config));
            let read = load(&text).unwrap();
            assert!(read.data.as_os_str() == name || read.auth.keys == [key.clone()], "{text}");
        }
    }
}

proptest! {
    /// No text makes the reader panic, and every problem has a place inside the text.
    #[test]
    fn any_text_is_read_or_refused(text in "([a-z_]{0,9}|\\[limits\\]|[=\\[\\]{}\"',.#\n 0-9-]|\\PC){0,40}") {
        if let Err(problems) = load(&text) {
            prop_assert!(!problems.0.is_empty());
            for problem in problems.0 {
                let line = problem.place.strip_prefix("f.toml:").map(str::parse::<usize>);
                let Some(Ok(line)) = line else {
                    return Err(TestCaseError::fail(format!("{problem}")));
                };
                prop_assert!(line >= 1 && line <= 1 + text.matches('\n').count());
            }
        }
    }

    #[test]
    fn any_changed_default_file_is_read_or_refused(
        at in any::<prop::sample::Index>(), with in any::<char>(),
    ) {
        let mut text: Vec<char> = default_file().chars().collect();
        let index = at.index(text.len());
        text[index] = with;
        let _ = load(&text.into_iter().collect::<String>());
    }
}

#[test]
fn messages_are_kept_for_ever_or_for_an_hour_at_least() {
    let retention = |text: &str| {
        let loaded = environment(&[("SKEIN_SCYLLA__RETENTION", text)]).read();
        loaded.map(|loaded| loaded.config.scylla.retention)
    };
    assert_eq!(retention("0s"), Ok(None));
    assert_eq!(retention("1h"), Ok(Some(Duration::from_secs(3600))));
    assert_eq!(retention("90days"), Ok(Some(Duration::from_secs(90 * 86_400))));
    for bad in ["59m", "30years", "14", ""] {
        let problem = retention(bad).unwrap_err().to_string();
        assert!(problem.contains("SKEIN_SCYLLA__RETENTION"), "{problem}");
    }
}
