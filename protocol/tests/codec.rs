//! What the codec promises for any bytes: the same frames however the stream is cut, no panic, no
//! memory beyond what has arrived, and no trouble with what a newer peer adds.

// A helper of a test fails like a test.
#![allow(clippy::unwrap_used)]

mod samples;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use samples::{encoded, server_frames};
use skein_protocol::Code;
use skein_protocol::frame::{Decoder, FrameError, encode};
use skein_protocol::wire::{ClientFrame, PullRequest, Push, Send, ServerFrame, client_frame};

const MAX: usize = 64 * 1024;

/// All bodies of `chunks`, and how the stream ended.
fn bodies(chunks: &[&[u8]], max: usize) -> (Vec<Bytes>, Result<usize, FrameError>) {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.poll_body(max) {
                Ok(Some(body)) => found.push(body),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
        let waiting = decoder.buffered();
        assert!(decoder.held() <= 2 * waiting, "{} held for {waiting}", decoder.held());
        assert!(decoder.held() <= max + 5, "{} held", decoder.held());
    }
    (found, Ok(decoder.buffered()))
}

/// `bytes` cut at `cuts`, in any order and with repetitions.
fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn frame_bytes() -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<Vec<u8>> = encoded().into_iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let payload = vec(any::<u8>(), 0..600).prop_map(|payload| {
        let send = Send { payload: payload.into(), ..Default::default() };
        encode(&ClientFrame { kind: Some(client_frame::Kind::Send(send)) }).to_vec()
    });
    prop_oneof![3 => prop::sample::select(samples), 1 => payload]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(frame_bytes(), 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_split_gives_the_same_frames(
        stream in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let whole = bodies(&[&stream], MAX);
        prop_assert_eq!(&whole.1, &Ok(0));
        prop_assert_eq!(&bodies(&cut(&stream, &cuts), MAX), &whole);
        prop_assert_eq!(&bodies(&stream.chunks(1).collect::<Vec<_>>(), MAX), &whole);
    }

    /// Garbage too is read the same however it is cut: the same frames, then the same error.
    #[test]
    fn any_split_of_garbage_ends_the_same(
        stream in vec(prop_oneof![0u8..9, any::<u8>()], 0..300),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
        max in 0usize..200,
    ) {
        let whole = bodies(&[&stream], max);
        prop_assert_eq!(&bodies(&cut(&stream, &cuts), max), &whole);
        prop_assert_eq!(&bodies(&stream.chunks(1).collect::<Vec<_>>(), max), &whole);
    }

    /// A caller that pushes without polling gets the frames late, but gets them.
    #[test]
    fn pushing_without_polling_loses_nothing(
        stream in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut decoder = Decoder::new();
        for chunk in cut(&stream, &cuts) {
            decoder.push(Bytes::copy_from_slice(chunk));
        }
        let mut found = Vec::new();
        while let Some(body) = decoder.poll_body(MAX).unwrap() {
            found.push(body);
        }
        prop_assert_eq!(found, bodies(&[&stream], MAX).0);
    }

    #[test]
    fn a_cut_stream_gives_its_whole_frames_and_waits(
        stream in stream(),
        end in any::<prop::sample::Index>(),
    ) {
        let whole = bodies(&[&stream], MAX).0;
        let end = end.index(stream.len() + 1);
        let (found, rest) = bodies(&[&stream[..end]], MAX);
        prop_assert!(rest.is_ok());
        prop_assert_eq!(&found[..], &whole[..found.len()]);
        // The rest, when it comes, completes the picture.
        prop_assert_eq!(bodies(&[&stream[..end], &stream[end..]], MAX).0, whole);
    }

    #[test]
    fn mutated_bytes_never_panic(
        stream in stream(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..8),
        cuts in vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut bytes = stream;
        for (at, value, how) in changes {
            let at = at.index(bytes.len() + 1);
            match how {
                0 if at < bytes.len() => bytes[at] = value,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, value),
            }
        }
        read_to_the_end::<ClientFrame>(&cut(&bytes, &cuts));
        read_to_the_end::<ServerFrame>(&cut(&bytes, &cuts));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..2_000)) {
        read_to_the_end::<ClientFrame>(&[&bytes]);
        read_to_the_end::<ServerFrame>(&[&bytes]);
        // And as the body of one frame.
        let _ = ClientFrame::decode(&bytes[..]);
        let _ = ServerFrame::decode(&bytes[..]);
    }

    /// Fields that this version does not know are passed over, in the envelope and inside.
    #[test]
    fn unknown_fields_are_survived(
        which in any::<prop::sample::Index>(),
        number in 1_000u32..100_000,
        value in any::<u64>(),
        text in ".{0,40}",
    ) {
        let samples = server_frames();
        let (_, frame) = &samples[which.index(samples.len())];
        let mut body = frame.encode_to_vec();
        prost::encoding::uint64::encode(number, &value, &mut body);
        prost::encoding::string::encode(number + 1, &text, &mut body);
        prop_assert_eq!(&ServerFrame::decode(&body[..]).unwrap(), frame);

        let mut push = Push { messages: vec![samples::message()] };
        let expected = push.clone();
        let mut message = push.messages.remove(0).encode_to_vec();
        prost::encoding::string::encode(number, &text, &mut message);
        let mut body = Vec::new();
        prost::encoding::bytes::encode(1, &message, &mut body);
        prop_assert_eq!(Push::decode(&body[..]).unwrap(), expected);
    }

    /// A frame kind that this version does not know is a frame without a kind, and the next frame
    /// is read as usual.
    #[test]
    fn unknown_kinds_are_survived(number in 18u32..10_000, content in vec(any::<u8>(), 0..200)) {
        let mut body = Vec::new();
        prost::encoding::bytes::encode(number, &content, &mut body);
        let mut stream = Vec::new();
        prost::encoding::encode_varint(body.len() as u64, &mut stream);
        stream.extend_from_slice(&body);
        let (_, known) = server_frames().swap_remove(0);
        stream.extend_from_slice(&encode(&known));

        let mut decoder = Decoder::new();
        decoder.push(stream.into());
        let unknown: ServerFrame = decoder.poll(MAX).unwrap().unwrap();
        prop_assert_eq!(unknown.kind, None);
        prop_assert_eq!(decoder.poll(MAX).unwrap(), Some(known));
        prop_assert_eq!(decoder.poll::<ServerFrame>(MAX).unwrap(), None);
    }
}

fn read_to_the_end<M: Message + Default>(chunks: &[&[u8]]) {
    let mut decoder = Decoder::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.poll::<M>(MAX) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.held() <= (2 * decoder.buffered()).min(MAX + 5));
    }
}

#[test]
fn every_frame_resumes_at_every_split() {
    let stream: Vec<u8> = encoded().iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let whole = bodies(&[&stream], MAX);
    assert_eq!(whole.0.len(), encoded().len());
    for at in 0..=stream.len() {
        assert_eq!(bodies(&[&stream[..at], &stream[at..]], MAX), whole, "split at {at}");
    }
}

#[test]
fn empty_frames_are_frames_without_a_kind() {
    let mut decoder = Decoder::new();
    decoder.push(Bytes::from_static(&[0, 0]));
    for _ in 0..2 {
        assert_eq!(decoder.poll::<ClientFrame>(MAX).unwrap(), Some(ClientFrame { kind: None }));
    }
    assert_eq!(decoder.poll::<ClientFrame>(MAX).unwrap(), None);
    assert_eq!((decoder.buffered(), decoder.held()), (0, 0));
}

#[test]
fn the_limit_is_the_longest_body() {
    for max in [0, 1, 127, 128, 16_383, 16_384, MAX] {
        let mut stream = Vec::new();
        prost::encoding::encode_varint(max as u64, &mut stream);
        stream.resize(stream.len() + max, 7);
        let (found, rest) = bodies(&[&stream], max);
        assert_eq!((found[0].len(), rest), (max, Ok(0)));

        let mut stream = Vec::new();
        prost::encoding::encode_varint(max as u64 + 1, &mut stream);
        // The prefix alone decides: not one byte of the body has come.
        let error = FrameError::TooLarge { len: max as u64 + 1, max };
        assert_eq!(error.code(), Code::FrameTooLarge);
        assert_eq!(bodies(&[&stream], max), (vec![], Err(error)));
    }
}

#[test]
fn prefixes_longer_than_needed_are_read_up_to_five_bytes() {
    for prefix in [&[2u8][..], &[0x82, 0], &[0x82, 0x80, 0], &[0x82, 0x80, 0x80, 0x80, 0]] {
        let stream = [prefix, b"ab"].concat();
        assert_eq!(bodies(&[&stream], 2), (vec![Bytes::from_static(b"ab")], Ok(0)));
    }
    // A sixth byte, or a fifth that asks for it, is no length.
    for prefix in [&[0x82, 0x80, 0x80, 0x80, 0x80, 0][..], &[0xff; 5], &[0xff; 10]] {
        assert_eq!(bodies(&[prefix], MAX), (vec![], Err(FrameError::Malformed)));
    }
    assert_eq!(FrameError::Malformed.code(), Code::MalformedFrame);
    // The largest length that five bytes can name.
    let huge = FrameError::TooLarge { len: (1 << 35) - 1, max: MAX };
    assert_eq!(bodies(&[&[0xff, 0xff, 0xff, 0xff, 0x7f]], MAX), (vec![], Err(huge)));
}

/// A promise costs nothing; a waiting part costs at most twice what has come of it, however it
/// comes; what is complete costs nothing afterwards.
#[test]
fn a_waiting_part_is_held_in_proportion_to_what_came() {
    let mut frame = Vec::new();
    prost::encoding::encode_varint(MAX as u64, &mut frame);
    frame.resize(frame.len() + MAX, 0);

    let mut decoder = Decoder::new();
    decoder.push(Bytes::copy_from_slice(&frame[..3]));
    assert_eq!(decoder.poll_body(MAX), Ok(None));
    assert!(decoder.held() <= 6, "a length alone holds {}", decoder.held());
    for (i, byte) in frame.iter().enumerate().skip(3) {
        decoder.push(Bytes::copy_from_slice(&[*byte]));
        let body = decoder.poll_body(MAX).unwrap();
        assert_eq!(body.is_some(), i + 1 == frame.len());
        assert!(decoder.held() <= 2 * (i + 1) && decoder.held() <= frame.len());
    }
    assert_eq!((decoder.held(), decoder.buffered()), (0, 0));

    // One chunk that completes a frame, brings many more and begins another: only the last
    // bytes stay, and they do not keep the chunk.
    let many = encode(&server_frames()[0].1).repeat(500);
    let mut decoder = Decoder::new();
    for chunk in [&many[..10], &[&many[10..], &many[..10]].concat()[..]] {
        decoder.push(Bytes::copy_from_slice(chunk));
        while decoder.poll_body(MAX).unwrap().is_some() {}
    }
    assert_eq!(decoder.buffered(), 10);
    assert!(decoder.held() <= 20, "10 bytes hold {}", decoder.held());
}

/// The worst that a frame of the largest size can make of the decoder: entries that are empty on
/// the wire and have a size in memory. It is let go with the frame.
#[test]
fn the_decoded_form_of_the_worst_frame_is_bounded() {
    // Tag and length of an empty range; tag and length of an empty request around them.
    let ranges = (MAX - 5) / 2;
    let mut body = Vec::new();
    prost::encoding::bytes::encode(17, &[0x0a, 0].repeat(ranges), &mut body);
    assert!(body.len() <= MAX && body.len() > MAX - 8);
    let frame = ClientFrame::decode(&body[..]).unwrap();
    let Some(client_frame::Kind::PullRequest(PullRequest { ranges: decoded })) = frame.kind else {
        panic!("not a pull request");
    };
    assert_eq!(decoded.len(), ranges);
    let bytes = decoded.capacity() * size_of_val(&decoded[0]);
    assert!(bytes < 4 * 1024 * 1024, "{bytes}");
}
