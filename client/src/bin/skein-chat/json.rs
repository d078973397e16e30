//! `--json`: commands on standard input, events on standard output, one JSON object a line.

use std::collections::HashSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use skein_client::{
    Client, ClientMsgId, Code, Event, Events, HistoryError, ReceiptKind, SendError, User,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::args::Args;
use crate::input::{self, Line};
use crate::setup;
use crate::wire::{self, Command, Event as Out};

/// How long to wait at the end for what is not acknowledged or answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages without an acknowledgement after which standard input is left unread.
const MAX_UNACKED: usize = 1000;

/// A chat that serves a script.
struct Chat {
    client: Client,
    events: Events,
    /// Messages of this run that wait for their acknowledgement.
    unacked: HashSet<String>,
    /// Answers to commands that take their time.
    answers: mpsc::Receiver<Out>,
    answer: mpsc::Sender<Out>,
    /// Such commands that are not answered yet.
    asked: usize,
    ready: bool,
    complained: bool,
    server: String,
}

/// What ends the chat.
enum End {
    Quit,
    /// The gateway does not want us; it was said.
    Fatal,
    /// Nobody reads our events.
    Deaf,
}

pub(crate) async fn run(args: &Args) -> ExitCode {
    let (client, events) = match setup::start(args).await {
        Ok(started) => started,
        Err(message) => {
            let _ = say(Out::Error { code: 0, retry: false, message, id: None });
            return ExitCode::FAILURE;
        }
    };
    let (answer, answers) = mpsc::channel(64);
    let chat = Chat {
        client,
        events,
        unacked: HashSet::new(),
        answers,
        answer,
        asked: 0,
        ready: false,
        complained: false,
        server: args.server.clone(),
    };
    chat.run().await
}

impl Chat {
    async fn run(mut self) -> ExitCode {
        let end = match self.serve().await {
            End::Quit => self.finish().await,
            end => end,
        };
        self.events.done();
        self.client.close().await;
        match end {
            End::Quit | End::Deaf => ExitCode::SUCCESS,
            End::Fatal => ExitCode::FAILURE,
        }
    }

    /// Until the script is done.
    async fn serve(&mut self) -> End {
        let mut lines = input::lines();
        let mut stop = std::pin::pin!(crate::asked_to_stop());
        loop {
            let room = self.unacked.len() < MAX_UNACKED && self.asked < 64;
            let outcome = tokio::select! {
                () = &mut stop => return End::Quit,
                event = self.events.next() => self.event(event),
                Some(answer) = self.answers.recv() => self.answered(answer),
                line = lines.recv(), if room => match line {
                    None => return End::Quit,
                    Some(line) => self.line(line).await,
                },
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Waits for acknowledgements and answers, but not for ever.
    async fn finish(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        while !self.unacked.is_empty() || self.asked > 0 {
            let outcome = tokio::select! {
                event = self.events.next() => self.event(event),
                Some(answer) = self.answers.recv() => self.answered(answer),
                () = tokio::time::sleep_until(deadline) => break,
            };
            if let Err(end) = outcome {
                return end;
            }
        }
        if !self.unacked.is_empty() {
            let message = format!(
                "{} messages are not acknowledged yet; the next start of this device sends them \
                 again",
                self.unacked.len()
            );
            let _ = say(Out::Error { code: 0, retry: true, message, id: None });
        }
        End::Quit
    }

    async fn line(&mut self, line: Line) -> Result<(), End> {
        let text = match line {
            Line::Text(text) if text.trim().is_empty() => return Ok(()),
            Line::Text(text) => text,
            Line::Unusable(why) => return complain(why, None),
        };
        match Command::parse(&text) {
            Err(message) => complain(message, None),
            Ok(Command::Quit) => Err(End::Quit),
            Ok(Command::Read { with, seq }) => {
                match self.client.mark_read(User(&with), seq).await {
                    Ok(()) => Ok(()),
                    Err(error) => complain(error.to_string(), None),
                }
            }
            Ok(Command::History { with, from, to }) => {
                self.history(with, from, to);
                Ok(())
            }
            Ok(Command::Send { to, text, base64, content_type, id }) => {
                let content = match wire::content(text, base64, content_type) {
                    Ok(content) => content,
                    Err(message) => return complain(message, id),
                };
                self.send(&to, content, id).await
            }
        }
    }

    async fn send(
        &mut self,
        to: &str,
        content: skein_client::Content,
        id: Option<String>,
    ) -> Result<(), End> {
        let sent = match &id {
            None => self.client.send(User(to), content).await,
            Some(text) => match ClientMsgId::parse(text) {
                Ok(id) => self.client.send_as(id, User(to), content).await,
                Err(error) => Err(SendError::Name(error)),
            },
        };
        match sent {
            Ok(handle) => {
                let id = handle.id().to_string();
                self.unacked.insert(id.clone());
                say(Out::Queued { id })
            }
            Err(error) => {
                let (code, retry) = match &error {
                    SendError::Refused(skein_client::OutgoingError::Full { .. }) => {
                        (Code::TooManySends, true)
                    }
                    SendError::Refused(skein_client::OutgoingError::TooLarge { .. }) => {
                        (Code::PayloadTooLarge, false)
                    }
                    SendError::Storage(_) | SendError::Closed => (Code::Internal, false),
                    _ => (Code::InvalidArgument, false),
                };
                let (code, message) = (code.number().into(), error.to_string());
                say(Out::Error { code, retry, message, id })
            }
        }
    }

    /// Asks on the side, because the answer may have to wait for a connection.
    fn history(&mut self, with: String, from: u64, to: u64) {
        let (client, answer) = (self.client.clone(), self.answer.clone());
        self.asked += 1;
        tokio::spawn(async move {
            let history = client.history(User(&with), from, to).await;
            let out = match history {
                Ok(history) => Out::History {
                    with,
                    messages: history.messages.into_iter().map(Into::into).collect(),
                    is_end: history.is_end,
                },
                // Nobody has said anything yet.
                Err(error) if error.code() == Some(Code::UnknownConversation) => {
                    Out::History { with, messages: Vec::new(), is_end: true }
                }
                Err(error) => {
                    let code = match &error {
                        HistoryError::Refused { code, .. } => (*code).into(),
                        _ => 0,
                    };
                    Out::Error { code, retry: false, message: error.to_string(), id: None }
                }
            };
            let _ = answer.send(out).await;
        });
    }

    fn answered(&mut self, answer: Out) -> Result<(), End> {
        self.asked -= 1;
        say(answer)
    }

    fn event(&mut self, event: Option<Event>) -> Result<(), End> {
        let Some(event) = event else { return Err(End::Fatal) };
        match event {
            Event::Connected { user, device, .. } => {
                self.ready = true;
                self.complained = false;
                say(Out::Ready { user: user.to_string(), device: device.to_string() })
            }
            Event::Reconnected { .. } => {
                self.complained = false;
                say(Out::Reconnected {})
            }
            Event::Disconnected { code, reason, retry_in } => {
                self.disconnected(code, reason, retry_in.is_some())
            }
            // It was reported as acknowledged.
            Event::Message { sent_here: true, .. } => Ok(()),
            Event::Message { message, .. } => say(Out::Message(message.into())),
            Event::Acked { id, conversation, seq, .. } => {
                self.unacked.remove(id.as_str());
                let conversation = conversation.to_string();
                say(Out::Acked { id: id.to_string(), conversation, seq })
            }
            Event::Rejected { id, code, reason } => {
                self.unacked.remove(id.as_str());
                let id = Some(id.to_string());
                say(Out::Error { code: code.into(), retry: false, message: reason, id })
            }
            Event::Postponed { id, code, reason, .. } => {
                let id = Some(id.to_string());
                say(Out::Error { code: code.into(), retry: true, message: reason, id })
            }
            Event::Receipt { conversation, kind, user, seq } => {
                let kind = match kind {
                    ReceiptKind::Delivered => "delivered",
                    ReceiptKind::Read => "read",
                };
                let conversation = conversation.to_string();
                say(Out::Receipt { conversation, kind, user: user.to_string(), seq })
            }
            Event::Skipped { conversation, from, to } => {
                let message =
                    format!("messages {from} to {to} of {conversation} cannot be had any more");
                say(Out::Error { code: 0, retry: false, message, id: None })
            }
            Event::StoreReset { .. } => {
                let message = "the gateway's store was replaced: numbers start anew".into();
                say(Out::Error { code: 0, retry: true, message, id: None })
            }
            Event::Notice { text } => say(Out::Notice { text }),
            Event::Error { code, reason, retry } => {
                say(Out::Error { code: code.into(), retry, message: reason, id: None })
            }
            _ => Ok(()),
        }
    }

    /// Says once that there is no connection, not at each attempt.
    fn disconnected(&mut self, code: Option<u64>, reason: String, retry: bool) -> Result<(), End> {
        if !std::mem::replace(&mut self.complained, true) {
            if self.ready {
                say(Out::Disconnected { reason: reason.clone() })?;
            } else if retry {
                let (server, advice) = (&self.server, setup::advice(&reason));
                let message = format!("no connection to {server} yet: {reason}; {advice}");
                say(Out::Error { code: code.unwrap_or(0), retry, message, id: None })?;
            }
        }
        if retry {
            return Ok(());
        }
        say(Out::Error { code: code.unwrap_or(0), retry, message: reason, id: None })?;
        Err(End::Fatal)
    }
}

fn complain(message: String, id: Option<String>) -> Result<(), End> {
    let code = Code::InvalidArgument.number().into();
    say(Out::Error { code, retry: false, message, id })
}

/// Writes one line. The reader has it at once, or there is none.
fn say(event: Out) -> Result<(), End> {
    let mut line = serde_json::to_vec(&event).map_err(|_| End::Deaf)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(|_| End::Deaf)
}
