use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::rule::Input;
use super::*;
use crate::plan::{Algorithm, Credentials, Cut, Load, Manners, Trust, Work};

fn load(text: &str) -> Result<Scenario, Problems> {
    Sources::new().text("s.toml", text).read()
}

/// Every problem as a line.
fn problems(text: &str) -> Vec<String> {
    load(text).unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn of(program: &str, rest: &str) -> Result<Scenario, Problems> {
    load(&format!("program = \"{program}\"\n{rest}"))
}

fn flags(program: Program, flags: &[(&str, &str, &str)]) -> Result<Scenario, Problems> {
    let sources = Sources::new().program(program);
    let add = |sources: Sources, (flag, key, value): &(&str, &str, &str)| {
        sources.flag(flag, key, vec![(*value).to_owned()])
    };
    flags.iter().fold(sources, add).read()
}

#[test]
fn every_preset_is_right_as_it_is_and_reads_what_it_prints() {
    for program in Program::ALL {
        let alone = Sources::new().program(program).read().unwrap();
        let printed = Scenario::preset(program).print();
        assert_eq!(load(&printed), Ok(alone.clone()), "{printed}");
        // What stands in the comments are the defaults.
        let mut reader = Scenario::preset(program);
        for key in keys_of(program) {
            let value = format!("v = {}", (key.print)(&reader)).parse::<toml::Table>().unwrap();
            let done = (key.set)(&mut reader, &Input::Toml(value["v"].clone()));
            assert_eq!(done, Ok(()), "{}", key.path);
        }
        assert_eq!(reader, Scenario::preset(program));
    }
}

#[test]
fn a_changed_scenario_is_printed_with_its_changes() {
    let text = "for = \"9s\"\nobjectives = [\"lost==0\"]\n[load]\npairs = 7\nrate = 12.5\n\
                payload_bytes = \"64..4KiB\"\n[target]\naddress = \"[::1]:9\"\n";
    let scenario = of("chat", text).unwrap();
    let printed = scenario.print();
    assert!(printed.contains("\npairs = 7\n") && printed.contains("\n# both_ways"), "{printed}");
    assert_eq!(load(&printed), Ok(scenario));
}

#[test]
fn flags_and_paths_are_unique_and_explained() {
    let (mut paths, mut flags) = (HashSet::new(), HashSet::new());
    for key in table::all_keys() {
        assert!(paths.insert(key.path) && flags.insert(key.flag), "{}", key.path);
        assert!(!key.doc.is_empty() && !(key.range)().is_empty(), "{}", key.path);
        assert!(key.doc.trim_end().ends_with(['.', '?']) || key.doc.ends_with("0.\n"));
        assert!(!(key.value_name)().is_empty(), "{}", key.path);
        assert!(key.flag.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", key.flag);
    }
}

#[test]
fn all_problems_come_at_once_in_order_with_their_lines() {
    let text = "program = \"hold\"\nfr = \"10s\"\nwarm_up = 3\nobjectives = [\"los==0\"]\n\n\
                [load]\nconections = 1\nconnect_rate = \"many\"\npairs = 5\n[tarjet]\nx = 1\n\
                [phases]\nplateau = 20\n";
    let expected = [
        "s.toml:2: unknown key `fr`; the nearest right one is `for`",
        "s.toml:3: `warm_up` = 3: must be a time with its unit, such as \"30s\", \"500ms\" or \
         \"1h 30m\"",
        "s.toml:4: `objectives` = [\"los==0\"]: `los==0` is no objective: nothing called `los` is \
         measured; the nearest right one is `lost`",
        "s.toml:7: unknown key `load.conections`; the nearest right one is `load.connections`",
        "s.toml:8: `load.connect_rate` = \"many\": must be a number",
        "s.toml:9: `load.pairs` means nothing to hold; it is for chat, ramp",
        "s.toml:10: unknown section [tarjet]; the nearest right one is [target]",
        "s.toml:13: `phases.plateau` = 20: must be a share, such as \"5%\" or 0.05",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn a_program_must_be_named() {
    assert_eq!(
        problems("for = \"1s\"\n"),
        ["s.toml: say which program: program = \"chat\", or \"hold\", \"group\", \"storm\", \
          \"sync\", \"churn\", \"mixed\", \"ramp\""]
    );
    assert_eq!(
        problems("\nprogram = \"caht\"\n"),
        ["s.toml:2: unknown program \"caht\"; the nearest right one is \"chat\""]
    );
    assert!(problems("program = 3\n")[0].starts_with("s.toml:1: unknown program 3"));
}

#[test]
fn a_key_in_the_wrong_place_is_led_to_the_right_one() {
    let found =
        problems("program = \"chat\"\npairs = 5\n[target]\nrate = 1\n[load]\nfor = \"1s\"\n");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].ends_with("is `load.pairs`"), "{found:?}");
    assert!(found[1].ends_with("is `load.rate`"), "{found:?}");
    assert!(found[2].ends_with("is `for`"), "{found:?}");
}

#[test]
fn broken_toml_is_told_with_its_line_and_the_rest_is_still_read() {
    let found = problems("program = \"chat\"\nname = \nfor = \"1\"\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("s.toml:2: not valid TOML"), "{found:?}");
    assert!(found[1].starts_with("s.toml:3: `for` = \"1\""), "{found:?}");
    assert!(problems("program = \"chat\"\nload = 3")[0].contains("is a section: write [load]"));
    assert!(problems("[program]\nx = 1")[0].contains("say which program"));
}

#[test]
fn flags_are_stronger_than_the_file() {
    let sources =
        Sources::new().text("s.toml", "program = \"chat\"\n[load]\npairs = 5\nrate = 9\n");
    let scenario = sources.flag("--pairs", "load.pairs", vec!["1_000".into()]).read().unwrap();
    assert_eq!((scenario.load.pairs, scenario.load.rate), (1000, 9.0));
    let objectives = vec!["lost==0".to_owned(), "p99(send_ack)<1s".to_owned()];
    let sources = Sources::new().program(Program::Chat);
    let scenario = sources.flag("--objective", "objectives", objectives).read().unwrap();
    assert_eq!(scenario.run.objectives.len(), 2);
    let wrong = flags(Program::Chat, &[("--pairs", "load.pairs", "0")]).unwrap_err();
    assert_eq!(wrong.to_string(), "--pairs: `load.pairs` = \"0\": must be 1 to 8000000");
}

#[test]
fn rules_between_keys() {
    let cases = [
        (
            "chat",
            "[load]\nrate = 5\noutstanding = 3\n",
            "s.toml:4: `load.outstanding` and `load.rate`",
        ),
        ("chat", "[load]\nthink_time = \"1s\"\noutstanding = 3\n", "two ways to pace"),
        ("hold", "[load]\nslow = 0.6\nsilent = 0.6\n", "more than all together"),
        ("hold", "objectives = [\"p99(send_ack)<1s\"]", "hold never does `send_ack`"),
        ("chat", "objectives = [\"p99(sync)<1s\"]", "s.toml:2: `p99(sync)<1s`: chat never does"),
        ("storm", "[load]\ncut = \"kill\"\n", "only a gateway that was started here"),
        ("storm", "for = \"4s\"\n", "is not within the measured time"),
        ("storm", "[load]\nreturn_over = \"1h\"\n", "the run ends before all have returned"),
        ("ramp", "[load]\nrate = 5\n", "a ramp raises `load.rate`: give `ramp.start`"),
        ("ramp", "[load]\ngroups = 5\n", "`load.groups` means nothing to a ramp of chat"),
        ("ramp", "[ramp]\nstep = 5\nfactor = 2\n", "two ways to rise"),
        ("ramp", "[load]\nconnections = 5\n", "`load.connections` means nothing to ramp"),
        ("ramp", "[ramp]\nof = \"sync\"\n", "must be one of \"chat\", \"group\""),
        ("ramp", "[ramp]\nmost = 10\n", "is less than `ramp.start`"),
        ("mixed", "[load]\nthink_time = \"0s\"\n", "must be more than 0s for writers"),
        ("mixed", "[load]\nweights = { hld = 1 }\n", "the nearest right one is \"hold\""),
        ("mixed", "[load]\nweights = \"hold=0\"\n", "weights, not all 0"),
        ("mixed", "[load]\nconnections = 2\nweights = \"group=1\"\n", "nobody does anything"),
        ("chat", "[target]\nspawn = true\naddress = \"h:1\"\n", "`target.address` is not needed"),
        ("chat", "[target]\nsettings = [\"a=b\"]\n", "only for a gateway that is started"),
        ("chat", "[target]\naddress = []\n", "names no gateway"),
        ("chat", "[target]\naddress = \"a:b\"\n", "host and port of a gateway"),
        ("chat", "[users]\nkey = \"a\"\ntokens = \"b\"\n", "both say where tokens come from"),
        ("chat", "metrics = \"localhost\"\n", "host and port, such as \"127.0.0.1:9464\""),
        ("chat", "[generator]\nlate_after = \"2s\"\n", "what is dropped was late"),
        ("chat", "[users]\nrun_id = \"Run 1\"\n", "1 to 16 of a-z 0-9"),
        ("chat", "[load]\npayload_bytes = \"5..3\"\n", "a size or a range of sizes"),
    ];
    for (program, text, expected) in cases {
        let found = of(program, text).expect_err(text).to_string();
        assert!(found.contains(expected) && found.lines().count() == 1, "{text}: {found}");
    }
}

#[test]
fn people_write_as_they_speak() {
    let scenario = of(
        "mixed",
        "[load]\nslow = \"5 %\"\nthink_time = \"1m 30s\"\npayload_bytes = \"1KiB\"\n\
         weights = { chat = 1, hold = 3 }\n[target]\naddress = \"a.example, b.example:9\"\n",
    )
    .unwrap();
    assert_eq!(scenario.load.slow, 0.05);
    assert_eq!(scenario.load.think_time, Duration::from_secs(90));
    assert_eq!(scenario.load.payload_bytes.high, 1024);
    assert_eq!(scenario.load.weights, Weights { hold: 3.0, chat: 1.0, ..Weights::default() });
    let hosts: Vec<String> = scenario.target.address.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a.example:7843", "b.example:9"]);
}

#[test]
fn a_ramp_without_objectives_has_usual_ones() {
    let objectives = |text| -> Vec<String> {
        of("ramp", text).unwrap().run.objectives.iter().map(ToString::to_string).collect()
    };
    assert_eq!(objectives(""), ["p99(send_ack)<100ms", "error_rate(send_ack)<1%"]);
    assert_eq!(objectives("objectives = [\"lost==0\"]\n"), ["lost==0"]);
}

fn resolved() -> Resolved {
    let outcome = crate::sample::empty();
    Resolved { target: outcome.plan.target, identity: outcome.plan.identity }
}

fn works(scenario: &Scenario) -> Vec<Work> {
    let plan = scenario.plan(&resolved()).unwrap();
    assert_eq!(plan.sessions(), scenario.sessions());
    plan.fleets.into_iter().map(|fleet| fleet.work).collect()
}

#[test]
fn scenarios_become_plans() {
    let scenario = of("hold", "[load]\nconnections = 9\nsilent = 0.5\n").unwrap();
    assert_eq!(works(&scenario), [Work::Hold { sessions: 9 }]);
    let plan = scenario.plan(&resolved()).unwrap();
    assert_eq!(plan.fleets[0].manners, Manners { slow: 0.0, silent: 0.5 });
    assert_eq!((plan.scenario.as_str(), plan.phases.plateau), ("hold", 0.2));

    let chat = works(&of("chat", "[load]\nrate = 7\narrival = \"poisson\"\n").unwrap());
    let load = Load::Rate { per_second: 7.0, arrival: crate::plan::Arrival::Poisson };
    assert_eq!(chat[0].traffic().unwrap().load, load);
    let closed = works(&of("chat", "[load]\noutstanding = 7\n").unwrap());
    assert_eq!(closed[0].traffic().unwrap().load, Load::Outstanding(7));
    let thinking = works(&of("group", "[load]\nthink_time = \"2s\"\n").unwrap());
    let mean = Duration::from_secs(2);
    assert_eq!(thinking[0].traffic().unwrap().load, Load::Think { mean });

    let storm = of("storm", "[target]\nspawn = true\n[load]\ncut = \"kill\"\n").unwrap();
    assert!(matches!(works(&storm)[0], Work::Storm { cut: Cut::Kill, sessions: 1000, .. }));
    let sync = works(&of("sync", "[load]\nusers = 3\nbacklog = 4\n").unwrap());
    assert!(matches!(sync[0], Work::Sync { receivers: 3, backlog: 4, outstanding: 16, .. }));
    let churn = works(&of("churn", "[load]\nchurn_rate = 4\n").unwrap());
    assert_eq!(churn, [Work::Churn { sessions: 1000, rate: 4.0 }]);
}

#[test]
fn a_ramp_is_what_it_raises_on_a_ladder() {
    let scenario = of("ramp", "[load]\npairs = 5\n[ramp]\nstart = 100\nfactor = 2\nmost = 500\n");
    let scenario = scenario.unwrap();
    assert!(matches!(works(&scenario)[0], Work::Chat { pairs: 5, .. }));
    let plan = scenario.plan(&resolved()).unwrap();
    let ladder = plan.ladder.unwrap();
    assert_eq!(ladder.loads(), [100.0, 200.0, 400.0]);
    assert_eq!((ladder.hold, ladder.settle), (Duration::from_secs(10), Duration::from_secs(3)));
    let load = plan.fleets[0].work.traffic().unwrap().load;
    assert!(matches!(load, Load::Rate { per_second: 100.0, .. }), "{load:?}");
    let stepped = of("ramp", "[ramp]\nof = \"group\"\nstart = 10\nstep = 5\nmost = 20\n").unwrap();
    assert!(matches!(works(&stepped)[0], Work::Group { .. }));
    let ladder = stepped.plan(&resolved()).unwrap().ladder.unwrap();
    assert_eq!(ladder.loads(), [10.0, 15.0, 20.0]);
    let chat = Sources::new().program(Program::Chat).read().unwrap();
    assert_eq!(chat.plan(&resolved()).unwrap().ladder, None);
}

#[test]
fn a_mix_has_all_its_sessions() {
    let scenario = of(
        "mixed",
        "[load]\nconnections = 1000\nreceivers = 9\nsilent = 0.1\nslow = 0.2\n\
         weights = \"hold=50,chat=30,group=10,churn=10\"\n",
    )
    .unwrap();
    let plan = scenario.plan(&resolved()).unwrap();
    let sessions: Vec<u64> = plan.fleets.iter().map(|fleet| fleet.work.sessions()).collect();
    assert_eq!(sessions, [500, 300, 100, 100]);
    let rates: f64 = plan.fleets.iter().map(|fleet| fleet.connect_rate).sum();
    assert!((rates - 1000.0).abs() < 1e-6);
    // A tenth of all is a fifth of the idle half.
    assert_eq!(plan.fleets[0].manners, Manners { slow: 0.0, silent: 0.2 });
    assert_eq!(plan.fleets[1].manners, Manners { slow: 0.2, silent: 0.0 });
}

mod files {
    use super::*;

    const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    const P256: &str = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n\
        OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n\
        1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n\
        -----END PRIVATE KEY-----\n";

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("dev")).unwrap();
            for (name, text) in files {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn resolve(&self, keys: &[(&str, &str)]) -> Result<Resolved, Problems> {
            let path = |name: &str| self.0.path().join(name).display().to_string();
            let data = ("--data", "target.data", path(""));
            let given = keys.iter().map(|(key, file)| ("--flag", *key, path(file)));
            let sources = Sources::new().program(Program::Chat);
            let add = |sources: Sources, (flag, key, value)| sources.flag(flag, key, vec![value]);
            given.chain([data]).fold(sources, add).read().unwrap().resolve()
        }
    }

    fn token(claims: &serde_json::Value) -> String {
        use base64::Engine as _;
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("signature"))
    }

    fn algorithm(resolved: &Resolved) -> Algorithm {
        match &resolved.identity.credentials {
            Credentials::Signed { algorithm, .. } => *algorithm,
            Credentials::Listed(_) => panic!("tokens are signed"),
        }
    }

    fn certificate() -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(b"not looked into here");
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn a_local_gateway_needs_nothing_but_its_folder() {
        let ca = certificate();
        let folder = Folder::new(&[("dev/ca.pem", &ca), ("dev/token-key.pem", ED25519)]);
        let resolved = folder.resolve(&[]).unwrap();
        assert_eq!(resolved.target.server_name, "localhost");
        assert_eq!(resolved.target.trust, Trust::Pem(ca));
        assert_eq!(resolved.target.addresses, [([127, 0, 0, 1], 7843).into()]);
        assert_eq!(algorithm(&resolved), Algorithm::EdDsa);
        assert_eq!(resolved.identity.run.len(), 8);
    }

    #[test]
    fn keys_are_told_apart() {
        let secret = "a shared secret of 32 bytes, or more\n";
        let folder = Folder::new(&[("ed", ED25519), ("ec", P256), ("hs", secret)]);
        for (file, expected) in
            [("ed", Algorithm::EdDsa), ("ec", Algorithm::Es256), ("hs", Algorithm::Hs256)]
        {
            let resolved = folder.resolve(&[("users.key", file)]).unwrap();
            assert_eq!(algorithm(&resolved), expected);
            assert_eq!(
                (resolved.target.trust, resolved.target.server_name.as_str()),
                (Trust::System, "127.0.0.1")
            );
        }
    }

    #[test]
    fn tokens_are_looked_into() {
        let (good, old) = (
            token(&serde_json::json!({ "sub": "u", "exp": 99_999_999_999_u64 })),
            token(&serde_json::json!({ "sub": "u", "exp": 1 })),
        );
        let nobody = token(&serde_json::json!({ "exp": 99_999_999_999_u64 }));
        let text = format!("# two\n{good}\n\n{good}\n");
        let wrong = format!("{good}\n{old}\nnonsense\n{nobody}\n");
        let folder = Folder::new(&[("tokens", &text), ("wrong", &wrong), ("empty", "\n")]);
        let resolved = folder.resolve(&[("users.tokens", "tokens")]).unwrap();
        let Credentials::Listed(tokens) = &resolved.identity.credentials else { panic!() };
        assert_eq!(tokens.len(), 2);
        let few = Scenario::preset(Program::Chat).plan(&resolved).unwrap_err().to_string();
        assert_eq!(few, "users.tokens: 200 users are needed, and there are 2 tokens");
        let found = folder.resolve(&[("users.tokens", "wrong")]).unwrap_err().to_string();
        let found: Vec<&str> = found.lines().collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("wrong:2: the token has expired"), "{found:?}");
        assert!(found[1].contains("wrong:3: is no token"), "{found:?}");
        assert!(found[2].contains("wrong:4: the token names no user"), "{found:?}");
        let none = folder.resolve(&[("users.tokens", "empty")]).unwrap_err().to_string();
        assert!(none.contains("holds no token"), "{none}");
    }

    #[test]
    fn files_that_are_something_else_are_told() {
        let folder = Folder::new(&[("short", "short"), ("pem", "-----BEGIN X-----\n")]);
        for (keys, expected) in [
            (&[][..], "there is no development key"),
            (&[("users.key", "none")], "cannot be read"),
            (&[("users.key", "short")], "neither a key in PEM nor a secret"),
            (&[("users.key", "pem")], "no private key in PEM (PKCS#8)"),
        ] {
            let found = folder.resolve(keys).unwrap_err().to_string();
            assert!(found.starts_with("users.key: ") && found.contains(expected), "{found}");
        }
        let found = folder.resolve(&[("target.ca", "short"), ("users.key", "none")]);
        let found = found.unwrap_err().to_string();
        assert_eq!(found.lines().count(), 2, "{found}");
        assert!(found.contains("short holds no certificate in PEM"), "{found}");
    }
}

proptest! {
    /// Whatever a file holds, the answer is a scenario or a list of problems.
    #[test]
    fn no_text_panics(text in "(program = \"(hold|mixed|ramp)\"\n)?([a-z_.\\[\\]=\"0-9{}, ]{0,20}\n){0,6}") {
        let _ = load(&text).map_err(|problems| problems.to_string());
    }

    /// A mix never has more sessions than were asked for, and only rounding is missing.
    #[test]
    fn a_mix_keeps_its_size(
        connections in 100u64..100_000,
        receivers in 1u64..50,
        weights in proptest::array::uniform4(0u32..100),
    ) {
        prop_assume!(weights.iter().sum::<u32>() > 0);
        let mut scenario = Scenario::preset(Program::Mixed);
        let [hold, chat, group, churn] = weights.map(f64::from);
        scenario.load.connections = connections;
        scenario.load.receivers = receivers;
        scenario.load.weights = Weights { hold, chat, group, churn };
        let sessions = scenario.sessions();
        let slack = 2 + receivers;
        prop_assert!(sessions <= connections + slack && sessions + slack >= connections,
            "{sessions} of {connections}");
    }
}
