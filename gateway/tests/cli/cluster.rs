//! What is said about a store in a cluster where there is none.

use super::{Ran, Shell};

/// A port that nobody listens on.
const NOWHERE: &str = "127.0.0.1:1";

fn scylla(shell: &Shell, args: &[&str]) -> Ran {
    let mut command = shell.command(args);
    command.env("SKEIN_STORE__KIND", "scylla").env("SKEIN_SCYLLA__CONNECT_TIMEOUT", "200ms");
    command.output().unwrap().into()
}

#[test]
fn what_is_missing_is_told_before_anything_is_done() {
    let shell = Shell::new();
    let ran = scylla(&shell, &["serve"]);
    assert_eq!((ran.status, ran.out.as_str()), (3, ""));
    assert!(ran.err.contains("scylla.contact_points"), "{}", ran.err);
    for command in ["apply", "check"] {
        let ran = shell.run(&["schema", command]);
        assert_eq!(ran.status, 3, "{command}");
        assert!(ran.err.contains("--set scylla.contact_points"), "{}", ran.err);
    }
    let given = format!("scylla.contact_points={NOWHERE}");
    let cases: [(&[&str], &str); 5] = [
        (&["scylla.user=skein"], "`scylla.user` is given without `scylla.password_file`"),
        (&["scylla.user=skein", "scylla.password_file=no"], "`scylla.password_file`: no: "),
        (&["scylla.tls_ca=no.pem"], "`scylla.tls_ca`: no.pem: "),
        (&["scylla.tls_cert=a"], "`scylla.tls_cert` is given without `scylla.tls_key`"),
        (&["scylla.keyspace=My-Keyspace"], "must be a lower-case letter"),
    ];
    for (settings, expected) in cases {
        let mut args = vec!["serve", "--set", &given];
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let ran = scylla(&shell, &args);
        assert_eq!(ran.status, 3, "{settings:?}: {}", ran.err);
        assert!(ran.err.contains(expected), "{settings:?}: {}", ran.err);
    }
}

#[test]
fn a_cluster_that_is_not_there_ends_the_start_with_a_clear_word() {
    let shell = Shell::new();
    let setting = format!("scylla.contact_points={NOWHERE}");
    for args in
        [&["serve", "--listen", "127.0.0.1:0"][..], &["schema", "apply"], &["schema", "check"]]
    {
        let args = [args, &["--set", &setting]].concat();
        let ran = scylla(&shell, &args);
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{args:?}: {}", ran.err);
        let last = ran.err.lines().last().unwrap();
        assert!(last.contains("no node of the cluster can be reached at 127.0.0.1:1"), "{last}");
    }
}

#[test]
fn the_statements_are_printed_without_a_cluster() {
    let shell = Shell::new();
    shell.write("skein.toml", "[scylla]\nkeyspace = \"chat\"\nreplication = \"dc1:3,dc2:2\"\n");
    for server in ["scylla", "cassandra"] {
        let args = ["schema", "print", "--for", server, "--config", "skein.toml"];
        let ran = shell.run(&args);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""));
        let first = ran.out.split(';').next().unwrap();
        assert!(first.contains("CREATE KEYSPACE IF NOT EXISTS chat"), "{first}");
        assert!(first.contains("'dc1': 3, 'dc2': 2"), "{first}");
        assert!(ran.out.contains("chat.messages") && ran.out.ends_with(";\n"), "{}", ran.out);
    }
}

#[test]
fn settings_of_the_other_store_are_remarked_on() {
    let shell = Shell::new();
    shell.write("skein.toml", "[scylla]\nkeyspace = \"skein\"\nin_flight = 7\n");
    let ran = shell.run(&["config", "check", "skein.toml"]);
    assert_eq!(ran.status, 0);
    let remark = "skein.toml:3: `scylla.in_flight` is not used with `store.kind` = \"embedded\"";
    assert_eq!(ran.out, format!("{remark}\nskein.toml: good\n"));
    shell.write(
        "skein.toml",
        "[store]\nkind = \"scylla\"\ncache_bytes = \"1GiB\"\npatience = \"3s\"\n\
         [scylla]\ncontact_points = [\"db\"]\n",
    );
    let ran = shell.run(&["config", "check", "skein.toml"]);
    let remark = "skein.toml:3: `store.cache_bytes` is not used with `store.kind` = \"scylla\"";
    assert_eq!(ran.out, format!("{remark}\nskein.toml: good\n"));
}
