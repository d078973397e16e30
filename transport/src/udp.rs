//! The socket: batched receive and send.
//!
//! Receiving takes up to 32 messages a system call (recvmmsg), each of which may be a run of
//! datagrams that the kernel joined (GRO). Sending joins datagrams to one address into one call
//! (GSO), across connections where that is right.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use bytes::BytesMut;
use quinn_proto::Transmit;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};

use crate::{core::Datagram, stats::Counters};

/// The longest a message can be, joined ones too.
const MAX_MESSAGE: usize = 65_535;
/// The most bytes in one GSO call (a UDP payload, less headers).
const MAX_GSO_BYTES: usize = 65_000;

/// A bound socket with its buffers.
pub(crate) struct Socket {
    pub(crate) io: mio::net::UdpSocket,
    state: UdpSocketState,
    buffer: Box<[u8]>,
}

impl Socket {
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            io: mio::net::UdpSocket::from_std(socket),
            state,
            // Pages that no message reaches are never touched.
            buffer: vec![0; MAX_MESSAGE * BATCH_SIZE].into_boxed_slice(),
        })
    }

    pub(crate) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// One batch. `true`: there may be more.
    pub(crate) fn receive(&mut self, counters: &Counters, mut each: impl FnMut(Datagram)) -> bool {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let count = {
            let mut chunks = self.buffer.chunks_exact_mut(MAX_MESSAGE);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            match self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut metas) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
                // An ICMP error of an earlier send (a client's port is closed).
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return true,
                // Whatever else it is (no memory for buffers, a firewall): it concerns datagrams that
                // are lost now, not the socket. The next arrival wakes the shard again.
                Err(error) => {
                    counters.receive_errors.add(1);
                    tracing::debug!(%error, "receiving failed");
                    return false;
                }
            }
        };
        counters.receives.add(1);
        for (meta, message) in metas[..count].iter().zip(self.buffer.chunks_exact(MAX_MESSAGE)) {
            counters.bytes_in.add(meta.len as u64);
            // The stride is the length of each datagram but the last.
            for data in message[..meta.len].chunks(meta.stride.max(1)) {
                counters.datagrams_in.add(1);
                each(Datagram {
                    remote: meta.addr,
                    local_ip: meta.dst_ip,
                    ecn: meta.ecn.map(ecn_in),
                    // A copy of the exact length: stream bytes that the application keeps hold
                    // this piece of memory alone, not a receive buffer.
                    data: BytesMut::from(data),
                });
            }
        }
        count == BATCH_SIZE
    }

    /// Sends until everything is out (`Ok`) or the socket's buffer is full (`Err(WouldBlock)`).
    pub(crate) fn send(&mut self, queue: &mut SendQueue, counters: &Counters) -> io::Result<()> {
        while let Some(run) = queue.runs.get(queue.sent) {
            let transmit = quinn_udp::Transmit {
                destination: run.destination,
                ecn: run.ecn.map(ecn_out),
                contents: &queue.bytes[run.start..run.start + run.len],
                segment_size: (run.segments > 1).then_some(run.segment),
                src_ip: run.src_ip,
            };
            match self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
                Ok(()) => {
                    counters.sends.add(1);
                    counters.datagrams_out.add(run.segments as u64);
                    counters.bytes_out.add(run.len as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    counters.send_blocked.add(1);
                    return Err(error);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Lost, as any datagram may be: QUIC repairs it, or its timeout notices.
                Err(_) => counters.send_errors.add(run.segments as u64),
            }
            queue.sent += 1;
        }
        queue.clear();
        queue.max_segments = self.state.max_gso_segments();
        Ok(())
    }
}

/// Datagrams on their way out.
pub(crate) struct SendQueue {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// Runs already sent.
    sent: usize,
    /// Datagrams that one call can carry.
    pub(crate) max_segments: usize,
}

/// Datagrams of one length (the last may be shorter) to one address.
struct Run {
    destination: SocketAddr,
    src_ip: Option<IpAddr>,
    ecn: Option<quinn_proto::EcnCodepoint>,
    start: usize,
    len: usize,
    segment: usize,
    segments: usize,
    /// See [`SendQueue::push`].
    apart: Option<u8>,
}

/// Capacity that the emptied queue keeps, bytes.
const KEEP: usize = 256 << 10;

impl SendQueue {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), runs: Vec::new(), sent: 0, max_segments: 1 }
    }

    /// Adds what a connection wants sent.
    ///
    /// It may leave in one call with what went to the same address before it, if `apart` is equal:
    /// a joined run arrives at one shard of the receiver, so a client keeps datagrams for
    /// different shards apart.
    pub(crate) fn push(&mut self, transmit: &Transmit, data: &[u8], apart: Option<u8>) {
        let size = data.len();
        let segment = transmit.segment_size.unwrap_or(size).max(1);
        let segments = size.div_ceil(segment);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(data);
        if let Some(last) = self.runs[self.sent..].last_mut() {
            let alike = last.destination == transmit.destination
                && last.src_ip == transmit.src_ip
                && last.ecn == transmit.ecn
                && last.apart == apart;
            let even = last.len == last.segment * last.segments;
            let fits = segment == last.segment || (segments == 1 && size <= last.segment);
            if alike
                && even
                && fits
                && last.segments + segments <= self.max_segments
                && last.len + size <= MAX_GSO_BYTES
            {
                last.len += size;
                last.segments += segments;
                return;
            }
        }
        self.runs.push(Run {
            destination: transmit.destination,
            src_ip: transmit.src_ip,
            ecn: transmit.ecn,
            start,
            len: size,
            segment,
            segments,
            apart,
        });
    }

    /// Bytes that are not sent yet, or are sent but not cleared away.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.runs.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
        self.runs.clear();
        self.runs.shrink_to(KEEP / 256);
        self.sent = 0;
    }

    /// Takes everything as single datagrams, in order.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn take(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        for run in &self.runs[self.sent..] {
            let bytes = &self.bytes[run.start..run.start + run.len];
            all.extend(bytes.chunks(run.segment).map(|data| (run.destination, data.to_vec())));
        }
        self.clear();
        all
    }
}

fn ecn_in(ecn: quinn_udp::EcnCodepoint) -> quinn_proto::EcnCodepoint {
    match ecn {
        quinn_udp::EcnCodepoint::Ect0 => quinn_proto::EcnCodepoint::Ect0,
        quinn_udp::EcnCodepoint::Ect1 => quinn_proto::EcnCodepoint::Ect1,
        quinn_udp::EcnCodepoint::Ce => quinn_proto::EcnCodepoint::Ce,
    }
}

fn ecn_out(ecn: quinn_proto::EcnCodepoint) -> quinn_udp::EcnCodepoint {
    match ecn {
        quinn_proto::EcnCodepoint::Ect0 => quinn_udp::EcnCodepoint::Ect0,
        quinn_proto::EcnCodepoint::Ect1 => quinn_udp::EcnCodepoint::Ect1,
        quinn_proto::EcnCodepoint::Ce => quinn_udp::EcnCodepoint::Ce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(port: u16, size: usize, segment_size: Option<usize>) -> Transmit {
        Transmit {
            destination: ([127, 0, 0, 1], port).into(),
            ecn: None,
            size,
            segment_size,
            src_ip: None,
        }
    }

    #[test]
    fn runs_are_joined_only_where_they_may_be() {
        let mut queue = SendQueue::new();
        queue.max_segments = 4;
        let mut push = |port, size: usize, segment, apart| {
            queue.push(&transmit(port, size, segment), &vec![port as u8; size], apart);
            queue.runs.len()
        };
        assert_eq!(push(1, 100, None, None), 1);
        assert_eq!(push(1, 100, None, None), 1, "same length");
        assert_eq!(push(1, 80, None, None), 1, "a shorter one ends the run");
        assert_eq!(push(1, 80, None, None), 2, "nothing after a shorter one");
        assert_eq!(push(2, 80, None, None), 3, "another address");
        assert_eq!(push(2, 240, Some(80), None), 3, "a run onto a run");
        assert_eq!(push(2, 80, None, None), 4, "no more than the kernel takes");
        assert_eq!(push(2, 80, None, Some(1)), 5, "another shard of the receiver");
        assert_eq!(push(2, 90, None, Some(1)), 6, "a longer one");
        let lengths: Vec<usize> = queue.take().iter().map(|(_, data)| data.len()).collect();
        assert_eq!(lengths, [100, 100, 80, 80, 80, 80, 80, 80, 80, 80, 90]);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes.len(), 0);
    }

    #[test]
    fn datagrams_arrive_as_they_were_queued() {
        let bound = || Socket::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let (mut from, mut to) = (bound(), bound());
        let port = to.io.local_addr().unwrap().port();
        let counters = Counters::default();
        let mut queue = SendQueue::new();
        queue.max_segments = from.state.max_gso_segments();
        for (i, size) in [100usize, 100, 100, 40, 60, 60, 1200].into_iter().enumerate() {
            queue.push(&transmit(port, size, None), &vec![i as u8; size], None);
        }
        from.send(&mut queue, &counters).unwrap();
        assert!(queue.is_empty());
        let mut got = Vec::new();
        // Loopback delivers before `send` returns.
        while got.len() < 7 {
            to.receive(&counters, |d| got.push((d.data[0], d.data.len())));
        }
        assert_eq!(got, [(0, 100), (1, 100), (2, 100), (3, 40), (4, 60), (5, 60), (6, 1200)]);
        assert_eq!((counters.datagrams_out.get(), counters.datagrams_in.get()), (7, 7));
    }
}
