//! Asks a node whether it serves: just enough of a client for that.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::frame::{Frame, opcode};
use super::options::USER;

/// A node that takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Consistency levels of section 3.
const ONE: u16 = 0x0001;
const ALL: u16 = 0x0005;

/// Whether the node takes clients.
pub(crate) fn serves(node: SocketAddr) -> io::Result<bool> {
    Probe::open(node).map(|_| true)
}

/// Whether the node takes clients, has told them about `peers` others, and reaches all of them.
pub(crate) fn serves_with(node: SocketAddr, peers: usize) -> io::Result<bool> {
    let mut probe = Probe::open(node)?;
    if peers == 0 {
        return Ok(true);
    }
    // What drivers read: peers without one of these are passed over.
    for column in ["native_address", "host_id", "schema_version", "tokens"] {
        let known = probe.count(&format!("SELECT COUNT({column}) FROM system.peers_v2"), ONE)?;
        if known != peers as u64 {
            return Ok(false);
        }
    }
    // A table that is on three nodes from the start: an answer from all of them.
    let everywhere = "SELECT COUNT(*) FROM system_distributed.view_build_status \
                      WHERE keyspace_name = 'none' AND view_name = 'none'";
    probe.count(everywhere, ALL).map(|rows| rows == 0)
}

struct Probe(TcpStream);

impl Probe {
    fn open(node: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&node, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut probe = Self(socket);
        let mut body = vec![0, 1];
        for text in ["CQL_VERSION", "3.0.0"] {
            body.extend((text.len() as u16).to_be_bytes());
            body.extend(text.as_bytes());
        }
        let answer = probe.ask(opcode::STARTUP, &body)?;
        if answer.opcode() == opcode::AUTHENTICATE {
            let token = format!("\0{USER}\0{USER}");
            let mut body = (token.len() as u32).to_be_bytes().to_vec();
            body.extend(token.as_bytes());
            expect(probe.ask(opcode::AUTH_RESPONSE, &body)?, opcode::AUTH_SUCCESS)?;
        } else {
            expect(answer, opcode::READY)?;
        }
        Ok(probe)
    }

    /// The one number that a query answers with.
    fn count(&mut self, query: &str, consistency: u16) -> io::Result<u64> {
        let mut body = (query.len() as u32).to_be_bytes().to_vec();
        body.extend(query.as_bytes());
        body.extend(consistency.to_be_bytes());
        body.push(0); // no flags
        let answer = expect(self.ask(opcode::QUERY, &body)?, opcode::RESULT)?;
        // One row of one bigint, at the end of the answer.
        match answer.body().last_chunk() {
            Some(number) => Ok(u64::from_be_bytes(*number)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn ask(&mut self, opcode: u8, body: &[u8]) -> io::Result<Frame> {
        self.0.write_all(Frame::request(0, opcode, body).bytes())?;
        Frame::read(&mut self.0)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn expect(answer: Frame, opcode: u8) -> io::Result<Frame> {
    if answer.opcode() == opcode {
        Ok(answer)
    } else {
        // Of an error this has the text in it.
        Err(io::Error::other(String::from_utf8_lossy(answer.body()).into_owned()))
    }
}
