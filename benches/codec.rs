//! Encoding and decoding of the frames that a gateway meets most.
//!
//! `cargo bench -p skein-benches --bench codec`. Throughput counts the bytes on the wire, prefix
//! included. `decode/stream` cuts a receive batch of 64 sends, as a busy shard does.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skein_protocol::frame::{Decoder, encode, encode_into};
use skein_protocol::limits::DEFAULT_MAX_FRAME_BYTES as MAX;
use skein_protocol::wire::{
    ClientFrame, Message, Ping, Push, Send, SendAck, ServerFrame, client_frame, send, server_frame,
};

/// A chat line of the length that `docs/architecture.md` measures with.
const PAYLOAD: &[u8] = &[b'x'; 220];
const CLIENT_MSG_ID: &str = "0192f3a1-7c44-7b1e-9f57-2f6f3a8b9c10";

fn client(kind: client_frame::Kind) -> ClientFrame {
    ClientFrame { kind: Some(kind) }
}

fn server(kind: server_frame::Kind) -> ServerFrame {
    ServerFrame { kind: Some(kind) }
}

fn ping() -> ClientFrame {
    client(client_frame::Kind::Ping(Ping { nonce: 1_000_000 }))
}

fn send_one() -> ClientFrame {
    client(client_frame::Kind::Send(Send {
        client_msg_id: CLIENT_MSG_ID.into(),
        content_type: String::new(),
        payload: Bytes::from_static(PAYLOAD),
        retry_after_seq: None,
        known_seq: None,
        target: Some(send::Target::Conversation(Bytes::from_static(&[1; 16]))),
    }))
}

fn send_ack() -> ServerFrame {
    server(server_frame::Kind::SendAck(SendAck {
        client_msg_id: CLIENT_MSG_ID.into(),
        conversation: Bytes::from_static(&[1; 16]),
        seq: 123_456,
        time_ms: 1_800_000_000_000,
        ..Default::default()
    }))
}

fn push(messages: u64) -> ServerFrame {
    let message = |seq| Message {
        conversation: Bytes::from_static(&[1; 16]),
        seq,
        sender: "alice".into(),
        sender_device: "phone".into(),
        client_msg_id: CLIENT_MSG_ID.into(),
        time_ms: 1_800_000_000_000,
        content_type: String::new(),
        payload: Bytes::from_static(PAYLOAD),
    };
    server(server_frame::Kind::Push(Push { messages: (1..=messages).map(message).collect() }))
}

fn one<M: prost::Message + Default>(c: &mut Criterion, name: &str, frame: &M) {
    let bytes = encode(frame);
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    // Into a buffer that is there already, as an outbox is.
    let mut buffer = BytesMut::with_capacity(bytes.len());
    group.bench_function(BenchmarkId::from_parameter(name), |b| {
        b.iter(|| {
            buffer.clear();
            encode_into(black_box(frame), &mut buffer);
            black_box(buffer.len())
        });
    });
    group.finish();

    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut decoder = Decoder::new();
    group.bench_function(BenchmarkId::from_parameter(name), |b| {
        b.iter(|| {
            decoder.push(black_box(&bytes).clone());
            black_box(decoder.poll::<M>(MAX))
        });
    });
    group.finish();
}

fn stream(c: &mut Criterion) {
    let bytes: Bytes = encode(&send_one()).repeat(64).into();
    let mut group = c.benchmark_group("decode/stream");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    // Whole, and cut into datagrams, so that frames lie across the borders.
    for chunk in [bytes.len(), 1_200] {
        group.bench_with_input(BenchmarkId::new("send x64, chunk", chunk), &chunk, |b, &chunk| {
            let mut decoder = Decoder::new();
            b.iter(|| {
                let mut rest = bytes.clone();
                while !rest.is_empty() {
                    decoder.push(rest.split_to(chunk.min(rest.len())));
                    while let Ok(Some(frame)) = decoder.poll::<ClientFrame>(MAX) {
                        black_box(frame);
                    }
                }
            });
        });
    }
    group.finish();
}

fn codec(c: &mut Criterion) {
    one(c, "ping", &ping());
    one(c, "send", &send_one());
    one(c, "send_ack", &send_ack());
    one(c, "push of 1", &push(1));
    one(c, "push of 32", &push(32));
    stream(c);
}

criterion_group!(benches, codec);
criterion_main!(benches);
