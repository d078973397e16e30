//! Rules between keys; what concerns one key alone stands with the key.

use skein_protocol::limits::FRAME_ENVELOPE_BYTES;

use super::Config;
use super::quantity::show_bytes;

/// Calls `problem` with the key to change and a message, for each rule that is broken.
pub(super) fn across_keys(config: &Config, mut problem: impl FnMut(&'static str, String)) {
    let limits = &config.limits;
    let show = |bytes: usize| show_bytes(bytes as u64);

    let room = limits.max_frame_bytes.saturating_sub(FRAME_ENVELOPE_BYTES);
    if limits.max_payload_bytes > room {
        problem(
            "limits.max_payload_bytes",
            format!(
                "`limits.max_payload_bytes` = {} does not fit a frame: with \
                 `limits.max_frame_bytes` = {} it may be at most {}",
                show(limits.max_payload_bytes),
                show(limits.max_frame_bytes),
                show(room),
            ),
        );
    }
    let hold_a_frame =
        [("limits.outbox_bytes", limits.outbox_bytes), ("limits.lane_bytes", limits.lane_bytes)];
    for (key, bytes) in hold_a_frame {
        if bytes < limits.max_frame_bytes {
            problem(
                key,
                format!(
                    "`{key}` = {} cannot hold one frame: make it at least \
                     `limits.max_frame_bytes` = {}",
                    show(bytes),
                    show(limits.max_frame_bytes),
                ),
            );
        }
    }
    if config.tls.cert.is_some() != config.tls.key.is_some() {
        let (given, missing) = if config.tls.cert.is_some() {
            ("tls.cert", "tls.key")
        } else {
            ("tls.key", "tls.cert")
        };
        problem(
            given,
            format!(
                "`{given}` is given without `{missing}`: a certificate and its key go together"
            ),
        );
    }
}
