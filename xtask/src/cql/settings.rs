//! What a node is started with: its configuration, its logging, the arguments of its JVM.

use std::fs;
use std::path::Path;

use super::folder::LOG;
use super::jars::Jars;
use super::{Addresses, CqlError, Options, Tls};

/// Where the nodes stand on the ring, at equal distances.
const TOKENS: [&str; 3] = ["-9223372036854775808", "-3074457345618258603", "3074457345618258602"];

/// Internals of the JDK that the server uses.
const EXPORTS: &str = "java.base/jdk.internal.misc java.base/java.lang.ref java.sql/java.sql \
    java.management.rmi/com.sun.jmx.remote.internal.rmi \
    java.management/com.sun.jmx.remote.security java.rmi/sun.rmi.registry \
    java.rmi/sun.rmi.server jdk.unsupported/sun.misc jdk.compiler/com.sun.tools.javac.file \
    jdk.attach/sun.tools.attach";
const OPENS: &str = "java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect \
    java.base/java.util java.base/java.io java.base/java.nio java.base/sun.nio.ch \
    java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect \
    java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar \
    jdk.management/com.sun.management.internal jdk.compiler/com.sun.tools.javac";

/// Writes the files that a node reads when it starts.
pub(crate) fn write(
    folder: &Path,
    node: usize,
    addresses: Addresses,
    options: &Options,
) -> Result<(), CqlError> {
    let conf = folder.join("conf");
    for folder in [&conf, &folder.join("tmp")] {
        fs::create_dir_all(folder).map_err(CqlError::at(folder))?;
    }
    let write = |name: &str, text: String| {
        let path = conf.join(name);
        fs::write(&path, text).map_err(CqlError::at(&path))
    };
    if let Some(tls) = &options.tls {
        // The server reads PEM with the key and its chain in one file.
        write(KEYS, format!("{}\n{}", tls.key, tls.chain))?;
        write(CLIENTS, tls.clients.clone().unwrap_or_else(|| tls.chain.clone()))?;
    }
    write("cassandra.yaml", configuration(&conf, node, addresses, options))?;
    write("logback.xml", logging(&folder.join(LOG)))
}

/// What nodes show, and what they trust; in the folder of the configuration.
const KEYS: &str = "node.pem";
const CLIENTS: &str = "clients.pem";

fn configuration(conf: &Path, node: usize, addresses: Addresses, options: &Options) -> String {
    let address = addresses.node(node);
    let (ip, native, storage) = (address.ip(), address.port(), addresses.storage());
    let advertised = if options.behind_proxies { addresses.proxy(node).ip() } else { address.ip() };
    // Every node is a seed, so that each can start again while the others are down.
    let seeds: Vec<_> = (0..addresses.nodes())
        .map(|node| format!("{}:{storage}", addresses.node(node).ip()))
        .collect();
    let seeds = seeds.join(",");
    let sync = if options.durable {
        "commitlog_sync: group\ncommitlog_sync_group_window: 5ms"
    } else {
        "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms"
    };
    let authenticator =
        if options.password { "PasswordAuthenticator" } else { "AllowAllAuthenticator" };
    let tls = options.tls.as_ref().map(|tls| encryption(conf, tls)).unwrap_or_default();
    // As delivered each table takes a megabyte as soon as it is written to; tests have many tables.
    let memtables = if options.optimised { "heap_buffers" } else { "unslabbed_heap_buffers" };
    let hints = options.hints;
    let timeout = options.request_timeout.as_millis().max(10);
    format!(
        "\
cluster_name: skein-{native}
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
num_tokens: 1
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: \"{seeds}\"
listen_address: {ip}
rpc_address: {ip}
broadcast_rpc_address: {advertised}
storage_port: {storage}
native_transport_port: {native}
authenticator: {authenticator}
{tls}{sync}
memtable_heap_space: 64MiB
memtable_allocation_type: {memtables}
memtable_offheap_space: 64MiB
auto_snapshot: false
hinted_handoff_enabled: {hints}
paxos_variant: v2
request_timeout: {timeout}ms
read_request_timeout: {timeout}ms
range_request_timeout: {timeout}ms
write_request_timeout: {timeout}ms
cas_contention_timeout: {timeout}ms
truncate_request_timeout: 60000ms
"
    )
}

fn encryption(conf: &Path, tls: &Tls) -> String {
    let (keys, clients) = (conf.join(KEYS), conf.join(CLIENTS));
    format!(
        "\
client_encryption_options:
  enabled: true
  optional: true
  require_client_auth: {}
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
  keystore: {}
  truststore: {}
",
        tls.clients.is_some(),
        keys.display(),
        clients.display()
    )
}

fn logging(file: &Path) -> String {
    format!(
        "\
<configuration>
  <appender name=\"FILE\" class=\"ch.qos.logback.core.FileAppender\">
    <file>{}</file>
    <encoder><pattern>%-5level [%thread] %date{{ISO8601}} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level=\"INFO\"><appender-ref ref=\"FILE\"/></root>
</configuration>
",
        file.display()
    )
}

/// What stands behind `java`.
pub(crate) fn arguments(folder: &Path, node: usize, jars: &Jars, options: &Options) -> Vec<String> {
    let conf = folder.join("conf");
    let heap = options.heap_mib();
    let mut arguments = vec![
        format!("-javaagent:{}", jars.agent().display()),
        format!("-Xms{heap}m"),
        format!("-Xmx{heap}m"),
        // One thread less per core, and less memory, than the others.
        "-XX:+UseSerialGC".into(),
        "-XX:+ExitOnOutOfMemoryError".into(),
        "-XX:-UsePerfData".into(),
        // What the server unpacks there goes with the folder.
        format!("-Djava.io.tmpdir={}", folder.join("tmp").display()),
        "-Djdk.attach.allowAttachSelf=true".into(),
        "-Dio.netty.tryReflectionSetAccessible=true".into(),
        "-Dcassandra-foreground=yes".into(),
        format!("-Dcassandra.config=file://{}", conf.join("cassandra.yaml").display()),
        format!("-Dcassandra.storagedir={}", folder.join("data").display()),
        format!(
            "-Dcassandra.initial_token={}",
            if options.nodes == 1 { "0" } else { TOKENS[node] }
        ),
        // The user is there at once.
        "-Dcassandra.superuser_setup_delay_ms=0".into(),
        // Nothing moves to or from a node, so there is nothing to wait for.
        "-Dcassandra.skip_wait_for_gossip_to_settle=0".into(),
        "-Dcassandra.auto_bootstrap=false".into(),
        "-Dcassandra.ring_delay_ms=3000".into(),
        "-Dcassandra.consistent.rangemovement=false".into(),
    ];
    if options.throwaway {
        // Otherwise every change of the schema waits for the disk several times. What is not
        // flushed is not known when a node starts again.
        arguments.push("-Dcassandra.test.flush_local_schema_changes=false".into());
    }
    if !options.optimised {
        arguments.push("-XX:TieredStopAtLevel=1".into());
    }
    for (flag, packages) in [("--add-exports", EXPORTS), ("--add-opens", OPENS)] {
        for package in packages.split_whitespace() {
            arguments.extend([flag.into(), format!("{package}=ALL-UNNAMED")]);
        }
    }
    arguments.extend(["-cp".into(), format!("{}:{}", conf.display(), jars.class_path())]);
    arguments.push("org.apache.cassandra.service.CassandraDaemon".into());
    arguments
}
