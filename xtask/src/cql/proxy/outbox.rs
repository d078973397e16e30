//! Writes frames to a socket, some of them late.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Fault;
use crate::cql::frame::Frame;

/// Frames that wait for the socket; then whoever reads the other socket waits, as TCP has it.
const WAITING: usize = 64;

/// Frames that are late at a time. Beyond this they are written at once.
const LATE: usize = 4_096;

/// Where frames for one socket are put. When all of it is dropped, what is late is still written.
#[derive(Clone)]
pub(super) struct Outbox(SyncSender<Letter>);

struct Letter {
    frame: Frame,
    /// When it is to be written, if not at once.
    due: Option<Instant>,
    /// To count when it is written.
    fault: Option<Fault>,
}

impl Outbox {
    /// A thread that writes to `socket`; `written` hears of every fault that has thereby happened,
    /// and `end` is called when nothing more will come.
    pub(super) fn open(
        socket: TcpStream,
        written: impl Fn(Fault) + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (sender, letters) = sync_channel(WAITING);
        thread::spawn(move || {
            write(socket, &letters, written);
            end();
        });
        Self(sender)
    }

    pub(super) fn put(&self, frame: Frame) {
        self.send(Letter { frame, due: None, fault: None });
    }

    /// A frame that is written after `late`; the fault has happened then.
    pub(super) fn put_late(&self, frame: Frame, late: Duration, fault: Fault) {
        self.send(Letter { frame, due: Some(Instant::now() + late), fault: Some(fault) });
    }

    fn send(&self, letter: Letter) {
        // The thread ends before us only when the socket is gone.
        let _ = self.0.send(letter);
    }
}

/// Returns when nothing more will come and all is written, or the socket is gone.
fn write(mut socket: TcpStream, letters: &Receiver<Letter>, written: impl Fn(Fault)) {
    let mut post = |letter: Letter| -> io::Result<()> {
        socket.write_all(letter.frame.bytes())?;
        if let Some(fault) = letter.fault {
            written(fault);
        }
        Ok(())
    };
    // By when they are due, then in the order in which they came.
    let mut late: BTreeMap<(Instant, u64), Letter> = BTreeMap::new();
    for number in 0_u64.. {
        let wait = late.first_key_value().map(|(&(due, _), _)| due.duration_since(Instant::now()));
        let done = match wait {
            Some(Duration::ZERO) => late.pop_first().map_or(Ok(()), |(_, letter)| post(letter)),
            Some(wait) => match letters.recv_timeout(wait) {
                Ok(letter) => take(letter, number, &mut late, &mut post),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(wait);
                    Ok(())
                }
            },
            None => match letters.recv() {
                Ok(letter) => take(letter, number, &mut late, &mut post),
                Err(_) => return,
            },
        };
        if done.is_err() {
            return;
        }
    }
}

fn take(
    letter: Letter,
    number: u64,
    late: &mut BTreeMap<(Instant, u64), Letter>,
    post: &mut impl FnMut(Letter) -> io::Result<()>,
) -> io::Result<()> {
    match letter.due {
        Some(due) if late.len() < LATE => {
            late.insert((due, number), letter);
            Ok(())
        }
        _ => post(letter),
    }
}
