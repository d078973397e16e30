//! Many QUIC connections per thread.
//!
//! A **shard** is one thread that owns one UDP socket, one `quinn_proto::Endpoint`, a slab of
//! connections, one timer queue, one transmit buffer and a dirty list. There is no task and no
//! lock per connection. The application lives inside the shard as a [`Driver`]: the shard calls
//! it with what happened, and it answers through [`Io`]. Other threads reach a shard through its
//! bounded [`Mailbox`].
//!
//! One turn of the loop: receive a batch -> feed the endpoint -> fire due timers -> take the
//! mailbox -> drive each dirty connection once -> send. Nothing in a turn is O(all connections).
//!
//! ```text
//! udp.rs -> shard.rs -> slot.rs -> Driver::on_* -> Io -> slot.rs -> udp.rs
//!             ^ timers.rs, mailbox.rs
//! ```
//!
//! Nothing here knows of chat.
