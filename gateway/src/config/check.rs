//! Rules between keys; what concerns one key alone stands with the key.

use skein_protocol::limits::FRAME_ENVELOPE_BYTES;

use super::quantity::show_bytes;
use super::{Config, StoreKind};

/// What an answer to a send counts in the outbox: a frame with ids of full length and its place.
const ANSWER_BYTES: usize = 256;

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
    let most = skein_storage::scylla::MAX_PAYLOAD_BYTES;
    if config.store.kind == StoreKind::Scylla && limits.max_payload_bytes > most {
        problem(
            "limits.max_payload_bytes",
            format!(
                "`limits.max_payload_bytes` = {} does not fit into one write to a cluster: with \
                 `store.kind` = \"scylla\" it may be at most {}",
                show(limits.max_payload_bytes),
                show(most),
            ),
        );
    }
    // A session leaves part of its outbox to answers, so one frame must fit into a part of it.
    let two_frames = 2 * limits.max_frame_bytes;
    if limits.outbox_bytes < two_frames {
        problem(
            "limits.outbox_bytes",
            format!(
                "`limits.outbox_bytes` = {} is too little for `limits.max_frame_bytes` = {}: make \
                 it at least twice that, {}",
                show(limits.outbox_bytes),
                show(limits.max_frame_bytes),
                show(two_frames),
            ),
        );
    }
    // The last quarter is for answers, and all that are under way may come at once.
    let answers = 4 * ANSWER_BYTES * limits.max_unacked_sends as usize;
    if limits.outbox_bytes < answers {
        problem(
            "limits.outbox_bytes",
            format!(
                "`limits.outbox_bytes` = {} is too little for `limits.max_unacked_sends` = {}: a \
                 quarter of it must hold their answers, so make it at least {}",
                show(limits.outbox_bytes),
                limits.max_unacked_sends,
                show(answers),
            ),
        );
    }
    // Each lane has an equal share, and a share that holds no frame would refuse every send.
    let a_frame_a_lane = limits.max_frame_bytes.saturating_mul(config.lanes as usize);
    if limits.lane_bytes < a_frame_a_lane {
        problem(
            "limits.lane_bytes",
            format!(
                "`limits.lane_bytes` = {} is too little for `lanes` = {}: each must hold one frame \
                 of `limits.max_frame_bytes` = {}, so make it at least {}",
                show(limits.lane_bytes),
                config.lanes,
                show(limits.max_frame_bytes),
                show(a_frame_a_lane),
            ),
        );
    }
    let pair = |name: &'static str, is_given: bool| (name, is_given);
    for (one, other, why) in [
        (
            pair("tls.cert", config.tls.cert.is_some()),
            pair("tls.key", config.tls.key.is_some()),
            "a certificate and its key go together",
        ),
        (
            pair("scylla.tls_cert", config.scylla.tls_cert.is_some()),
            pair("scylla.tls_key", config.scylla.tls_key.is_some()),
            "a certificate and its key go together",
        ),
        (
            pair("scylla.user", config.scylla.user.is_some()),
            pair("scylla.password_file", config.scylla.password_file.is_some()),
            "a user and its password go together",
        ),
    ] {
        if one.1 != other.1 {
            let (given, missing) = if one.1 { (one.0, other.0) } else { (other.0, one.0) };
            problem(given, format!("`{given}` is given without `{missing}`: {why}"));
        }
    }
    if config.scylla.tls_cert.is_some() && config.scylla.tls_ca.is_none() {
        problem(
            "scylla.tls_cert",
            "`scylla.tls_cert` is given without `scylla.tls_ca`: connections are encrypted only \
             if the gateway knows whom to trust"
                .into(),
        );
    }
    if config.store.kind == StoreKind::Scylla && config.scylla.contact_points.is_empty() {
        problem(
            "store.kind",
            "`store.kind` = \"scylla\" needs to know where the cluster is: name some of its nodes \
             in `scylla.contact_points`"
                .into(),
        );
    }
}

/// A remark if other machines can reach the admin listener.
pub(super) fn exposed_admin(config: &Config) -> Option<String> {
    let listen = config.admin.listen.filter(|listen| !listen.ip().to_canonical().is_loopback())?;
    Some(format!(
        "`admin.listen` = {listen} can be reached from other machines, and speaks HTTP without TLS: \
         who listens in on the way reads the token. Let only a network of operators reach it, by a \
         firewall or a network policy"
    ))
}

/// Whether the key has no effect with this kind of store.
pub(super) fn is_unused(config: &Config, path: &str) -> bool {
    match config.store.kind {
        StoreKind::Embedded => path.starts_with("scylla."),
        StoreKind::Scylla => {
            path.starts_with("store.") && !["store.kind", "store.patience"].contains(&path)
        }
    }
}
