//! What the driver's errors mean to the store. The one place that knows.

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};

use super::options::{ConnectError, ScyllaOptions};
use crate::StoreError;

/// Whether it is certain that nothing of the request was put on a socket. Holds for requests that
/// the driver does not repeat by itself: of more than one attempt it tells the last error only.
///
/// Everything else may have been, or may still be, carried out; a refusal too (`UNAVAILABLE`,
/// `OVERLOADED`): it may stand for a proposal that some replicas have accepted and that a later
/// transaction finishes.
pub(super) fn was_never_sent(error: &ExecutionError) -> bool {
    match error {
        // Without a plan, a connection, or bytes that could be sent.
        ExecutionError::EmptyPlan
        | ExecutionError::ConnectionPoolError(_)
        | ExecutionError::BadQuery(_)
        | ExecutionError::PrepareError(_) => true,
        ExecutionError::LastAttemptError(attempt) => matches!(
            attempt,
            RequestAttemptError::SerializationError(_)
                | RequestAttemptError::CqlRequestSerialization(_)
                | RequestAttemptError::UnableToAllocStreamId
        ),
        // A timeout may have struck while it was still waiting for a connection, or later.
        _ => false,
    }
}

/// A read or a plain write that failed: the same call may succeed later.
pub(super) fn unavailable(error: &ExecutionError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// An answer that has not the form that was asked for.
pub(super) fn unexpected(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("the cluster's answer cannot be read: {error}"))
}

/// A statement that the cluster does not prepare.
pub(super) fn preparing(error: &PrepareError) -> ConnectError {
    let source = StoreError::Unavailable(error.to_string());
    ConnectError::Request { what: "prepare a statement".into(), source }
}

/// Why there is no session.
pub(super) fn connecting(error: &NewSessionError, options: &ScyllaOptions) -> ConnectError {
    let user = options.credentials.as_ref().map(|credentials| credentials.user.clone());
    if let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(
        ConnectionPoolError::Broken {
            last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
        },
    )) = error
    {
        match setup.get_error() {
            ConnectionSetupRequestErrorKind::DbError(
                DbError::AuthenticationError | DbError::Unauthorized,
                reason,
            ) => return ConnectError::Refused { user, reason: reason.clone() },
            ConnectionSetupRequestErrorKind::MissingAuthentication => {
                let reason = "it wants a user and a password".into();
                return ConnectError::Refused { user, reason };
            }
            _ => {}
        }
    }
    let contact_points = options.contact_points.clone();
    ConnectError::Unreachable { contact_points, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::{BrokenConnectionErrorKind, WriteType};

    use super::*;

    #[test]
    fn only_what_never_reached_a_socket_counts_as_not_sent() {
        let attempt = |error| ExecutionError::LastAttemptError(error);
        let answered = |error| attempt(RequestAttemptError::DbError(error, String::new()));
        let consistency = scylla::statement::Consistency::Quorum;
        for sent in [
            ExecutionError::RequestTimeout(Duration::from_secs(1)),
            attempt(RequestAttemptError::BrokenConnectionError(
                BrokenConnectionErrorKind::ChannelError.into(),
            )),
            answered(DbError::Overloaded),
            answered(DbError::Unavailable { consistency, required: 2, alive: 1 }),
            answered(DbError::WriteTimeout {
                consistency,
                received: 1,
                required: 2,
                write_type: WriteType::Cas,
            }),
            answered(DbError::Invalid),
        ] {
            assert!(!was_never_sent(&sent), "{sent}");
        }
        for unsent in [
            ExecutionError::EmptyPlan,
            ConnectionPoolError::Initializing.into(),
            attempt(RequestAttemptError::UnableToAllocStreamId),
        ] {
            assert!(was_never_sent(&unsent), "{unsent}");
        }
    }
}
