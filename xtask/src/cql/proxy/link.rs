//! One connection of a driver through a proxy.
//!
//! Four threads: one that reads and one that writes, at each of the two sockets. It ends when one of
//! the sockets does. If that is the driver's, the node's stays until what is late has been sent and
//! all is answered, at most [`DRAIN`].

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::faults::{Answer, Fault};
use super::outbox::Outbox;
use super::{Door, locked};
use crate::cql::frame::Frame;

/// So long a node may take to answer what it was sent before the driver went away.
const DRAIN: Duration = Duration::from_secs(60);

/// Runs it; returns when the driver's side is over.
pub(super) fn run(
    id: u64,
    driver: TcpStream,
    server: TcpStream,
    door: &Arc<Door>,
) -> io::Result<()> {
    driver.set_nodelay(true)?;
    server.set_nodelay(true)?;
    door.enter(id, &driver)?;
    let done = pump(&driver, &server, door);
    let _ = driver.shutdown(Shutdown::Both);
    door.leave(id);
    done
}

fn pump(driver: &TcpStream, server: &TcpStream, door: &Arc<Door>) -> io::Result<()> {
    let open = Arc::new(Open::default());
    let counter = || {
        let door = door.clone();
        move |fault| door.count(Some(fault))
    };
    let to_driver = Outbox::open(driver.try_clone()?, counter(), || {});
    let to_server = {
        let (open, server) = (open.clone(), server.try_clone()?);
        Outbox::open(server.try_clone()?, counter(), move || {
            open.drain();
            let _ = server.shutdown(Shutdown::Both);
        })
    };
    {
        let (open, door, to_driver) = (open.clone(), door.clone(), to_driver.clone());
        let (driver, server) = (driver.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = responses(&server, &to_driver, &open, &door);
            open.close();
            let _ = driver.shutdown(Shutdown::Both);
        });
    }
    requests(driver, &to_server, &to_driver, &open, door)
}

/// Requests that the node has not answered, by their number towards the node.
#[derive(Default)]
struct Open {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: HashMap<i16, Request>,
    /// The number of the last one.
    last: i16,
    /// The node is gone.
    closed: bool,
}

struct Request {
    /// Its number towards the driver.
    stream: i16,
    then: Then,
}

/// What becomes of a response.
enum Then {
    Pass,
    Late(Duration),
    Lose(Option<Fault>),
    Replace(Answer),
}

impl Open {
    /// A number for a request, the next that is free; none when all are in use.
    fn add(&self, request: Request) -> Option<i16> {
        let mut state = locked(&self.state);
        let following = (1..=i16::MAX).map(|step| state.last.wrapping_add(step) & i16::MAX);
        let number = following.into_iter().find(|number| !state.requests.contains_key(number))?;
        state.last = number;
        state.requests.insert(number, request);
        Some(number)
    }

    fn take(&self, number: i16) -> Option<Request> {
        let request = locked(&self.state).requests.remove(&number);
        self.changed.notify_all();
        request
    }

    fn close(&self) {
        locked(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Waits until everything is answered or never will be.
    fn drain(&self) {
        let waits = |state: &mut State| !state.closed && !state.requests.is_empty();
        let waited = self.changed.wait_timeout_while(locked(&self.state), DRAIN, waits);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn requests(
    driver: &TcpStream,
    to_server: &Outbox,
    to_driver: &Outbox,
    open: &Open,
    door: &Door,
) -> io::Result<()> {
    let mut reader = BufReader::new(driver);
    while let Some(mut frame) = Frame::read(&mut reader)? {
        let stream = frame.stream();
        let judged = door.judge(frame.opcode());
        let (then, late) = match judged {
            None => (Then::Pass, None),
            Some((fault, late)) => match fault {
                Fault::DropRequest => {
                    door.count(Some(fault));
                    continue;
                }
                Fault::DropResponse => (Then::Lose(Some(fault)), None),
                Fault::DelayRequest => (Then::Pass, Some((late, fault))),
                Fault::DelayResponse => (Then::Late(late), None),
                Fault::CutBefore => {
                    door.count(Some(fault));
                    return Ok(());
                }
                Fault::CutAfter => (Then::Lose(None), None),
                Fault::AnswerInstead(answer) => {
                    to_driver.put(Frame::error(stream, &answer.body()));
                    door.count(Some(fault));
                    continue;
                }
                Fault::AnswerAfter(answer) => (Then::Replace(answer), None),
                Fault::AnswerBefore(answer) => {
                    to_driver.put(Frame::error(stream, &answer.body()));
                    (Then::Lose(None), Some((late, fault)))
                }
            },
        };
        let Some(number) = open.add(Request { stream, then }) else {
            return Err(io::Error::other("a driver with too many requests at once"));
        };
        frame.set_stream(number);
        match late {
            Some((late, fault)) => to_server.put_late(frame, late, fault),
            None => to_server.put(frame),
        }
        if let Some((fault @ Fault::CutAfter, _)) = judged {
            door.count(Some(fault));
            return Ok(());
        }
    }
    Ok(())
}

fn responses(server: &TcpStream, to_driver: &Outbox, open: &Open, door: &Door) -> io::Result<()> {
    let mut reader = BufReader::new(server);
    while let Some(mut frame) = Frame::read(&mut reader)? {
        // Events belong to no request.
        if frame.stream() < 0 {
            to_driver.put(frame);
            continue;
        }
        let Some(request) = open.take(frame.stream()) else { continue };
        frame.set_stream(request.stream);
        match request.then {
            Then::Pass => {
                door.count(None);
                to_driver.put(frame);
            }
            Then::Late(late) => to_driver.put_late(frame, late, Fault::DelayResponse),
            Then::Lose(fault) => {
                if fault.is_some() {
                    door.count(fault);
                }
            }
            Then::Replace(answer) => {
                door.count(Some(Fault::AnswerAfter(answer)));
                to_driver.put(Frame::error(request.stream, &answer.body()));
            }
        }
    }
    Ok(())
}
