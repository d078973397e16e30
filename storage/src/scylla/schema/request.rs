//! Single statements about the schema: seldom, and patient.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;

use super::super::connect::Quorum;
use super::super::errors;
use super::options::SchemaError;

/// How long somebody waits.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Patience {
    /// Longest time for one attempt.
    timeout: Duration,
    attempts: u32,
}

impl Patience {
    /// Of those who make the schema or open the store. A change of the schema goes to every node
    /// and to disk.
    pub(in super::super) const LONG: Self = Self { timeout: Duration::from_secs(60), attempts: 3 };

    /// Of those who keep others waiting.
    pub(in super::super) const fn once(timeout: Duration) -> Self {
        Self { timeout, attempts: 1 }
    }
}

/// How long after a statement failed it is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// How a conditional statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditional {
    Applied,
    /// Its condition does not hold; after an attempt whose answer was lost, perhaps because of
    /// that attempt.
    Not,
}

/// Changes the schema, and waits until all nodes have the change. All of these statements can be
/// repeated.
pub(super) async fn change(session: &Session, text: &str) -> Result<(), SchemaError> {
    let what = text.split(" (").next().unwrap_or(text);
    run(session, None, Patience::LONG, what, text, ()).await.map(drop)
}

/// Reads.
pub(super) async fn rows<R>(
    session: &Session,
    consistency: Consistency,
    patience: Patience,
    what: &str,
    text: &str,
    values: impl SerializeRow,
) -> Result<Vec<R>, SchemaError>
where
    R: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
{
    let failed = |source| SchemaError::Request { what: what.into(), source };
    let answer = run(session, Some(consistency), patience, what, text, values).await?;
    let answer = answer.into_rows_result().map_err(|error| failed(errors::unexpected(error)))?;
    let rows = answer.rows::<R>().map_err(|error| failed(errors::unexpected(error)))?;
    rows.collect::<Result<_, _>>().map_err(|error| failed(errors::unexpected(error)))
}

/// Writes if a condition holds.
pub(super) async fn conditional(
    session: &Session,
    quorum: Quorum,
    what: &str,
    text: &str,
    values: impl SerializeRow,
) -> Result<Conditional, SchemaError> {
    let answer = run(session, Some(quorum.plain), Patience::LONG, what, text, values).await?;
    match super::super::conditional::is_applied(answer) {
        Ok(true) => Ok(Conditional::Applied),
        Ok(false) => Ok(Conditional::Not),
        Err(source) => Err(SchemaError::Request { what: what.into(), source }),
    }
}

async fn run(
    session: &Session,
    consistency: Option<Consistency>,
    patience: Patience,
    what: &str,
    text: &str,
    values: impl SerializeRow,
) -> Result<QueryResult, SchemaError> {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(patience.timeout));
    if let Some(consistency) = consistency {
        statement.set_consistency(consistency);
    }
    let mut attempt = 1;
    loop {
        let error = match session.query_unpaged(statement.clone(), &values).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if attempt >= patience.attempts || is_final(&error) {
            let source = errors::unavailable(&error);
            return Err(SchemaError::Request { what: what.into(), source });
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether it will be the same next time.
fn is_final(error: &ExecutionError) -> bool {
    use scylla::errors::{DbError, RequestAttemptError};
    matches!(
        error,
        ExecutionError::BadQuery(_)
            | ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                DbError::SyntaxError
                    | DbError::Invalid
                    | DbError::Unauthorized
                    | DbError::ConfigError,
                _
            ))
    )
}
