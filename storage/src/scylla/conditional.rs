//! Answers to conditional writes.
//!
//! Cassandra answers with one row: `[applied]`, and if it was not applied the columns that the
//! condition looked at, unless there is nothing in the partition. ScyllaDB answers with one row
//! for each conditional statement of a batch, all with all columns, also if it was applied. So columns are
//! found by their name, and a value in any of the rows.

use scylla::response::query_result::QueryResult;
use scylla::value::{CqlValue, Row};

use super::errors::unexpected;
use crate::StoreError;

/// Whether a conditional write was applied.
pub(super) fn is_applied(answer: QueryResult) -> Result<bool, StoreError> {
    read(answer, None).map(|(applied, _)| applied)
}

/// Whether it was applied, and the value that a column of integers had before, if it had one.
pub(super) fn applied_or(
    answer: QueryResult,
    column: &str,
) -> Result<(bool, Option<i64>), StoreError> {
    read(answer, Some(column))
}

fn read(answer: QueryResult, column: Option<&str>) -> Result<(bool, Option<i64>), StoreError> {
    let answer = answer.into_rows_result().map_err(unexpected)?;
    let columns = answer.column_specs();
    let place_of = |name| columns.get_by_name(name).map(|(place, _)| place);
    let applied = place_of("[applied]").ok_or_else(|| unexpected("it has no [applied]"))?;
    let column = column.and_then(place_of);
    let (mut outcome, mut value) = (None, None);
    for row in answer.rows::<Row>().map_err(unexpected)? {
        let row = row.map_err(unexpected)?;
        // A batch is applied as a whole: rows that differ are no answer at all.
        match (row.columns.get(applied), outcome) {
            (Some(Some(CqlValue::Boolean(now))), None) => outcome = Some(*now),
            (Some(Some(CqlValue::Boolean(now))), Some(before)) if *now == before => {}
            _ => return Err(unexpected("it is applied and it is not")),
        }
        if let Some(Some(Some(CqlValue::BigInt(number)))) =
            column.map(|column| row.columns.get(column).map(Option::as_ref))
        {
            value = value.max(Some(*number));
        }
    }
    Ok((outcome.ok_or_else(|| unexpected("it has no row"))?, value))
}
