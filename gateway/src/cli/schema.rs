//! `skein schema`: the tables of the store in a cluster.

use clap::{Subcommand, ValueEnum};
use skein_storage::scylla::ScyllaOptions;
use skein_storage::scylla::schema::{self, SchemaError, SchemaOptions, ServerKind};

use super::Failure;
use super::exit::print;
use super::settings::Settings;
use crate::config::{Config, StoreKind};
use crate::open::{self, scylla_options};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the CQL statements that make the schema. Needs no cluster.
    ///
    /// For those who make it by other means or want to read it first. `skein schema apply` does
    /// more: it waits for agreement after each statement, and writes down what the keyspace was
    /// made for, without which no gateway starts.
    Print {
        /// The server that they are for
        #[arg(long = "for", value_name = "SERVER", value_enum, default_value_t = Server::Scylla)]
        server: Server,
        #[command(flatten)]
        making: Making,
        #[command(flatten)]
        settings: Settings,
    },
    /// Make the schema, or what is missing of it.
    ///
    /// May be repeated at any time, by several at once, and while gateways serve.
    Apply {
        #[command(flatten)]
        making: Making,
        #[command(flatten)]
        settings: Settings,
    },
    /// Give the store a new epoch, after an older state was restored into it.
    ///
    /// The store is the keyspace if the configuration names a cluster, and otherwise the one in the
    /// data folder.
    ///
    /// Clients then see that the log is another one, throw their positions away and sync anew;
    /// without it, one that had seen more than was restored would wait for ever. Stop all gateways
    /// first: one that runs goes on with the old epoch.
    RenewEpoch {
        #[command(flatten)]
        settings: Settings,
    },
    /// Tell whether the schema is what this program and configuration need.
    ///
    /// Ends with status 4 if it is not: missing, older, newer, or made for something else.
    Check {
        #[command(flatten)]
        settings: Settings,
    },
}

/// What cannot be changed later, and is not the gateway's to know.
#[derive(Debug, clap::Args)]
pub(super) struct Making {
    /// Messages of a conversation in one partition, 1 to 1000000; fixed once the keyspace is made
    #[arg(long, value_name = "NUMBER", default_value_t = SchemaOptions::default().bucket_rows)]
    bucket_rows: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Server {
    /// ScyllaDB
    Scylla,
    /// Apache Cassandra
    Cassandra,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Print { server, making, settings } => {
            let config = settings.load([])?.config;
            let kind = match server {
                Server::Scylla => ServerKind::ScyllaDb,
                Server::Cassandra => ServerKind::Cassandra,
            };
            let options = schema_options(&config, making);
            let statements = schema::statements(kind, &config.scylla.keyspace, &options);
            let lines = statements.into_iter().map(|text| format!("{text};\n"));
            print(&lines.collect::<Vec<_>>().join("\n"))
        }
        Command::Apply { making, settings } => {
            let config = settings.load([])?.config;
            apply(&cluster_of(&config)?, &schema_options(&config, making))
        }
        Command::RenewEpoch { settings } => {
            let config = settings.load([])?.config;
            let embedded = config.store.kind == StoreKind::Embedded;
            if embedded && config.scylla.contact_points.is_empty() {
                renew_epoch_of_folder(&config)
            } else {
                renew_epoch(&cluster_of(&config)?)
            }
        }
        Command::Check { settings } => check(&cluster_of(&settings.load([])?.config)?),
    }
}

fn schema_options(config: &Config, making: &Making) -> SchemaOptions {
    let replication = config.scylla.replication.clone();
    SchemaOptions { replication, bucket_rows: making.bucket_rows }
}

/// Where the cluster is; `store.kind` may still name the other store.
fn cluster_of(config: &Config) -> Result<ScyllaOptions, Failure> {
    if config.scylla.contact_points.is_empty() {
        let what = "`scylla.contact_points` names no node: say where the cluster is, for instance \
                    with --set scylla.contact_points=10.0.0.1";
        return Err(Failure::Configuration(what.into()));
    }
    scylla_options(&config.scylla).map_err(|error| Failure::Configuration(error.to_string()))
}

fn apply(options: &ScyllaOptions, schema: &SchemaOptions) -> Result<(), Failure> {
    let mut progress = |step: &str| {
        // Whoever pipes it away still wants it done.
        let _ = print(&format!("{step}\n"));
    };
    let report = block_on(schema::apply(options, schema, &mut progress))?;
    let (keyspace, version, kind) = (&options.keyspace, report.version, report.kind);
    let what = match report.applied.len() {
        0 => "nothing was missing",
        _ => "done",
    };
    print(&format!("{what}: keyspace {keyspace} on {kind} has schema version {version}\n"))
}

fn renew_epoch(options: &ScyllaOptions) -> Result<(), Failure> {
    fit(options)?;
    let epoch = block_on(schema::renew_epoch(options))?;
    print(&format!("keyspace {} has epoch {epoch}; start the gateways\n", options.keyspace))
}

fn renew_epoch_of_folder(config: &Config) -> Result<(), Failure> {
    let folder = &config.data;
    let epoch = open::renew_epoch(config).map_err(|error| Failure::Failed(error.to_string()))?;
    print(&format!("the store in {} has epoch {epoch}; start the gateway\n", folder.display()))
}

/// What is there, if a gateway could start on it.
fn fit(options: &ScyllaOptions) -> Result<schema::Found, Failure> {
    let found = block_on(schema::check(options))?;
    match found.problem(options) {
        Some(problem) => Err(Failure::Unfit(problem.to_string())),
        None => Ok(found),
    }
}

fn check(options: &ScyllaOptions) -> Result<(), Failure> {
    let found = fit(options)?;
    let (keyspace, kind) = (&options.keyspace, found.kind);
    let version = found.version.unwrap_or_default();
    print(&format!("keyspace {keyspace} on {kind} has schema version {version}: good\n"))
}

fn block_on<T>(work: impl Future<Output = Result<T, SchemaError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("no runtime", error))?;
    runtime.block_on(work).map_err(|error| match error {
        SchemaError::Option(what) => Failure::Configuration(what),
        SchemaError::Newer { .. } | SchemaError::Unfit(_) => Failure::Unfit(error.to_string()),
        error => Failure::Failed(error.to_string()),
    })
}
