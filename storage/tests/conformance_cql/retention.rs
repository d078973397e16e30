use super::Own;
pub const TESTS: &[Own] = &[];
