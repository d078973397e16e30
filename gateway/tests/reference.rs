//! docs/configuration.md says what the list of keys says. `SKEIN_UPDATE=1` writes it anew.

use std::path::Path;

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = skein_gateway::config::reference_page();
    if std::env::var_os("SKEIN_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(
        there == page,
        "docs/configuration.md is not current: \
         SKEIN_UPDATE=1 cargo test -p skein-gateway --test reference"
    );
}
