use super::*;

#[test]
fn the_printed_defaults_are_the_defaults() {
    let loaded = Sources::new().text("default", &default_file()).read().unwrap();
    assert_eq!(loaded.config, Config::default());
}
