//! Each fault, between a driver and a node made of a few lines.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Aim, Answer, Fault, Faults, Proxies};
use crate::cql::frame::{Frame, opcode};

/// Longer than anything takes here; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The lateness of the tests, and what a test that looks for nothing waits.
const LATE: Duration = Duration::from_millis(200);

/// Later than any test waits.
const NEVER: Duration = Duration::from_secs(3_600);

/// A node that answers each request with its own body, and tells what it executes.
struct Server {
    address: SocketAddr,
    executed: Receiver<String>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, executed) = channel();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, tell) = (socket.unwrap(), tell.clone());
                thread::spawn(move || serve(socket, &tell));
            }
        });
        Self { address, executed }
    }

    fn next(&self) -> String {
        self.executed.recv_timeout(PATIENCE).unwrap()
    }

    fn executes_nothing(&self) {
        assert_eq!(self.executed.recv_timeout(LATE).ok(), None);
    }
}

fn serve(mut socket: TcpStream, tell: &Sender<String>) -> Option<()> {
    while let Some(request) = Frame::read(&mut socket).ok()? {
        tell.send(text(&request)).ok()?;
        let answer = Frame::request(request.stream(), opcode::RESULT, request.body());
        socket.write_all(answer.bytes()).ok()?;
    }
    Some(())
}

fn text(frame: &Frame) -> String {
    String::from_utf8_lossy(frame.body()).into_owned()
}

struct Driver(TcpStream);

impl Driver {
    fn connect(proxies: &Proxies) -> Self {
        let socket = TcpStream::connect(proxies.addresses()[0]).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn send(&mut self, stream: i16, opcode: u8, body: &str) {
        self.0.write_all(Frame::request(stream, opcode, body.as_bytes()).bytes()).unwrap();
    }

    fn batch(&mut self, stream: i16, body: &str) {
        self.send(stream, opcode::BATCH, body);
    }

    /// The next response: its stream, its opcode, its body.
    fn response(&mut self) -> (i16, u8, String) {
        let frame = Frame::read(&mut self.0).unwrap().unwrap();
        (frame.stream(), frame.opcode(), text(&frame))
    }

    fn result(&mut self) -> (i16, String) {
        let (stream, opcode, body) = self.response();
        assert_eq!(opcode, opcode::RESULT);
        (stream, body)
    }

    /// The code of an error.
    fn error(&mut self) -> (i16, [u8; 4]) {
        let frame = Frame::read(&mut self.0).unwrap().unwrap();
        assert_eq!(frame.opcode(), opcode::ERROR);
        (frame.stream(), *frame.body().first_chunk().unwrap())
    }

    fn hears_nothing(&mut self) {
        self.0.set_read_timeout(Some(LATE)).unwrap();
        let heard = Frame::read(&mut self.0).map_err(|error| error.kind());
        assert_eq!(heard, Err(io::ErrorKind::WouldBlock));
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    fn is_cut(&mut self) {
        assert!(matches!(Frame::read(&mut self.0), Ok(None) | Err(_)));
    }
}

/// A node, a proxy that makes `fault` of every batch, and a driver.
fn scene(fault: Fault) -> (Server, Proxies, Driver) {
    scene_with(fault, LATE)
}

fn scene_with(fault: Fault, late: Duration) -> (Server, Proxies, Driver) {
    let server = Server::start();
    let proxies = Proxies::start(&[((Ipv4Addr::LOCALHOST, 0).into(), server.address)]).unwrap();
    proxies.set_faults(&Faults { delay: late..=late, ..Faults::one(fault, 1.0) });
    let driver = Driver::connect(&proxies);
    (server, proxies, driver)
}

/// The fault is counted from when it has happened, which the driver cannot always see.
fn counted(proxies: &Proxies, fault: Fault) {
    let deadline = Instant::now() + PATIENCE;
    while proxies.counts().of(fault) == 0 {
        assert!(Instant::now() < deadline, "{fault:?} is not counted: {:?}", proxies.counts());
        thread::yield_now();
    }
    assert_eq!(proxies.counts().faults.len(), 1);
    assert_eq!(proxies.counts().of(fault), 1);
}

#[test]
fn without_faults_all_passes_and_streams_keep_their_numbers() {
    let (server, proxies, mut driver) = scene(Fault::DropRequest);
    proxies.heal();
    for (stream, body) in [(7, "a"), (32_767, "b"), (0, "c")] {
        driver.batch(stream, body);
        assert_eq!(server.next(), body);
        assert_eq!(driver.result(), (stream, body.into()));
    }
    assert_eq!(proxies.counts().passed, 3);
    assert!(proxies.counts().faults.is_empty());
}

#[test]
fn a_dropped_request_is_never_executed() {
    let (server, proxies, mut driver) = scene(Fault::DropRequest);
    driver.batch(1, "lost");
    driver.hears_nothing();
    server.executes_nothing();
    counted(&proxies, Fault::DropRequest);
}

#[test]
fn a_dropped_response_was_executed() {
    let (server, proxies, mut driver) = scene(Fault::DropResponse);
    driver.batch(1, "done");
    assert_eq!(server.next(), "done");
    counted(&proxies, Fault::DropResponse);
    driver.hears_nothing();
}

#[test]
fn a_delayed_request_is_executed_after_the_driver_has_gone() {
    let (server, proxies, mut driver) = scene(Fault::DelayRequest);
    let sent = Instant::now();
    driver.batch(1, "late");
    drop(driver);
    assert_eq!(server.next(), "late");
    assert!(sent.elapsed() >= LATE);
    counted(&proxies, Fault::DelayRequest);
}

#[test]
fn what_is_delayed_is_passed_by_the_rest() {
    for fault in [Fault::DelayRequest, Fault::DelayResponse] {
        let (_server, _proxies, mut driver) = scene_with(fault, NEVER);
        driver.batch(1, "first");
        driver.send(2, opcode::EXECUTE, "second");
        assert_eq!(driver.result(), (2, "second".into()));
    }
}

#[test]
fn a_delayed_response_comes_late() {
    let (server, proxies, mut driver) = scene(Fault::DelayResponse);
    let sent = Instant::now();
    driver.batch(1, "slow");
    assert_eq!(server.next(), "slow");
    assert_eq!(driver.result(), (1, "slow".into()));
    assert!(sent.elapsed() >= LATE);
    counted(&proxies, Fault::DelayResponse);
}

#[test]
fn a_cut_before_leaves_nothing_executed() {
    let (server, proxies, mut driver) = scene(Fault::CutBefore);
    driver.batch(1, "lost");
    driver.is_cut();
    server.executes_nothing();
    counted(&proxies, Fault::CutBefore);
}

#[test]
fn a_cut_after_leaves_it_executed_and_what_was_late_as_well() {
    let (server, proxies, mut driver) = scene(Fault::CutAfter);
    let one = |fault, rate| Faults { delay: LATE..=LATE, ..Faults::one(fault, rate) };
    proxies.set_faults(&Faults { aim: Aim::Statements, ..one(Fault::DelayRequest, 1.0) });
    driver.send(1, opcode::EXECUTE, "late");
    // The proxy has read the first when it has answered a second that it does not delay.
    driver.send(2, opcode::STARTUP, "between");
    assert_eq!(driver.result(), (2, "between".into()));
    proxies.set_faults(&one(Fault::CutAfter, 1.0));
    driver.batch(3, "done");
    driver.is_cut();
    let executed = BTreeSet::from([server.next(), server.next(), server.next()]);
    assert_eq!(executed, BTreeSet::from(["between", "done", "late"].map(String::from)));
    assert_eq!(proxies.counts().of(Fault::CutAfter), 1);
}

#[test]
fn errors_of_the_proxy_are_told_before_after_or_instead() {
    for (answer, code) in [
        (Answer::CasTimeout, [0, 0, 0x11, 0]),
        (Answer::CommitTimeout, [0, 0, 0x11, 0]),
        (Answer::ReadTimeout, [0, 0, 0x12, 0]),
        (Answer::Unavailable, [0, 0, 0x10, 0]),
        (Answer::Overloaded, [0, 0, 0x10, 1]),
        (Answer::ServerError, [0, 0, 0, 0]),
    ] {
        let (server, proxies, mut driver) = scene(Fault::AnswerInstead(answer));
        driver.batch(5, "lost");
        assert_eq!(driver.error(), (5, code));
        driver.send(6, opcode::QUERY, "after");
        assert_eq!(server.next(), "after", "the batch is not executed");
        counted(&proxies, Fault::AnswerInstead(answer));

        let (server, proxies, mut driver) = scene(Fault::AnswerAfter(answer));
        driver.batch(5, "done");
        assert_eq!(driver.error(), (5, code));
        assert_eq!(server.next(), "done");
        counted(&proxies, Fault::AnswerAfter(answer));

        let (server, proxies, mut driver) = scene(Fault::AnswerBefore(answer));
        driver.batch(5, "late");
        assert_eq!(driver.error(), (5, code));
        assert_eq!(server.next(), "late");
        counted(&proxies, Fault::AnswerBefore(answer));
        driver.hears_nothing();
    }
}

#[test]
fn a_stream_that_was_answered_early_may_be_used_again() {
    let (server, _proxies, mut driver) = scene(Fault::AnswerBefore(Answer::Overloaded));
    driver.batch(5, "late");
    assert_eq!(driver.error().0, 5);
    driver.send(5, opcode::QUERY, "other");
    assert_eq!(driver.result(), (5, "other".into()));
    let executed = BTreeSet::from([server.next(), server.next()]);
    assert_eq!(executed, BTreeSet::from(["late", "other"].map(String::from)));
    driver.hears_nothing();
}

#[test]
fn aims() {
    let opcodes = [opcode::STARTUP, opcode::QUERY, opcode::EXECUTE, opcode::BATCH];
    for (aim, hit) in [
        (Aim::Batches, [false, false, false, true]),
        (Aim::Statements, [false, true, true, true]),
        (Aim::Everything, [true, true, true, true]),
    ] {
        let (_server, proxies, mut driver) = scene(Fault::DropRequest);
        let answer = Fault::AnswerInstead(Answer::Overloaded);
        proxies.set_faults(&Faults { aim, ..Faults::one(answer, 1.0) });
        let mut heard = Vec::new();
        for opcode in opcodes {
            driver.send(1, opcode, "");
            heard.push(driver.response().1 == opcode::ERROR);
        }
        assert_eq!(heard, hit, "{aim:?}");
    }
}

#[test]
fn every_kind_occurs_and_a_seed_repeats_the_dice() {
    let faults = Faults::every_kind(7, 0.9);
    let draw = |seed, node| {
        let mut judge = super::Judge::new(&Faults { seed, ..faults.clone() }, node);
        (0..2_000).map(|_| judge.judge(opcode::BATCH)).collect::<Vec<_>>()
    };
    let drawn = draw(7, 0);
    let kinds: BTreeSet<_> = drawn.iter().flatten().map(|(fault, _)| *fault).collect();
    assert_eq!(kinds, Fault::all().into_iter().collect());
    assert!(drawn.iter().any(Option::is_none));
    assert!(drawn.iter().flatten().all(|(_, late)| faults.delay.contains(late)));
    assert_eq!(drawn, draw(7, 0));
    assert_ne!(drawn, draw(8, 0));
    assert_ne!(drawn, draw(7, 1));
}

#[test]
fn disconnecting_cuts_what_is_open_and_takes_new_ones() {
    let (server, proxies, mut driver) = scene(Fault::DropRequest);
    proxies.heal();
    driver.batch(1, "a");
    assert_eq!(driver.result(), (1, "a".into()));
    proxies.disconnect(0);
    driver.is_cut();
    let mut driver = Driver::connect(&proxies);
    driver.batch(1, "b");
    assert_eq!(driver.result(), (1, "b".into()));
    assert_eq!([server.next(), server.next()], ["a", "b"]);
}

#[test]
fn a_driver_of_a_dead_node_is_hung_up_on_and_the_proxy_goes_on() {
    let server = Server::start();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let proxies = Proxies::start(&[(here, free), (here, server.address)]).unwrap();
    for _ in 0..3 {
        Driver::connect(&proxies).is_cut();
    }
    let address = proxies.addresses()[0];
    drop(proxies);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}
