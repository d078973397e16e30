//! Every limit of the wire, with its unit and its reason. Limits that an operator may change are
//! keys of the gateway's configuration; their defaults stand here, and `Welcome.limits` tells the
//! client what is in force.

use std::time::Duration;

/// Longest frame without its length prefix, bytes. One message with its envelope; small enough
/// that a peer which sends half of it and stops costs little.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 64 * 1024;

/// Room that a frame's envelope may take beside the payload, bytes: ids, target, times, tags.
pub const FRAME_ENVELOPE_BYTES: usize = 1024;

/// Longest payload of a message, bytes: a frame less its envelope.
pub const DEFAULT_MAX_PAYLOAD_BYTES: usize = DEFAULT_MAX_FRAME_BYTES - FRAME_ENVELOPE_BYTES;

/// Longest user id, bytes. Holds a UUID, an e-mail address of usual length, an `auth0|...`.
pub const MAX_USER_ID_BYTES: usize = 64;

/// Longest device id, bytes.
pub const MAX_DEVICE_ID_BYTES: usize = 64;

/// Longest client message id, bytes. Holds a UUID in text form.
pub const MAX_CLIENT_MSG_ID_BYTES: usize = 64;

/// Longest content type, bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 128;

/// Longest `Hello.platform`, bytes.
pub const MAX_PLATFORM_BYTES: usize = 64;

/// Longest `SystemNotice.text`, bytes.
pub const MAX_NOTICE_BYTES: usize = 1024;

/// Longest token, bytes. RS/ES tokens with a handful of claims stay far below.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Least time between two tokens of one session. Checking a signature costs a shard as much as
/// hundreds of other frames, so a session may not ask for it as fast as it can write.
pub const MIN_TOKEN_INTERVAL: Duration = Duration::from_secs(1);

/// Sends without an answer that one session may have under way. Bounds what a session holds in
/// the lanes' queues; at 100 ms round trip it still allows 640 messages a second.
pub const DEFAULT_MAX_UNACKED_SENDS: u32 = 64;

/// Bulk streams that one session may have open at once. Two let history load beside a sync.
pub const DEFAULT_MAX_BULK_STREAMS: u32 = 2;

/// Entries (cursors, ranges, conversations) in one frame of a client.
pub const DEFAULT_MAX_ENTRIES: u32 = 256;

/// Heads in one `HeadsPage`: about 100 bytes each, so that a page stays under a frame.
pub const HEADS_PER_PAGE: usize = 256;

/// How often a client must say something, advised in Welcome. Mappings of carrier NATs live
/// 30 s and more (RFC 9000 section 10.1.2), so the client is heard before they lapse.
pub const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(25);

/// A peer that says nothing for this share of the interval, in percent, is evicted.
pub const HEARTBEAT_GRACE_PERCENT: u32 = 150;

/// A connection that has not been welcomed after this time is closed: handshake and Hello of an
/// honest client take a few round trips.
pub const DEFAULT_HELLO_TIMEOUT: Duration = Duration::from_secs(10);
