//! The chat for a person.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skein_client::{
    Client, Code, ConversationId, Event, Events, HistoryError, Message, ReceiptKind, Seq, Target,
    UserId,
};
use tokio::sync::mpsc;

use crate::args::Args;
use crate::input::{self, Line, Printer};
use crate::setup;

/// How long to wait at the end for what is not acknowledged.
const PATIENCE: Duration = Duration::from_secs(3);

/// Messages that /history shows if it is not told how many, and at most.
const HISTORY: u32 = 20;
const MAX_HISTORY: u32 = 500;

const HELP: &str = "\
/to NAME       talk to NAME; what you type from then on goes there
/history [N]   the last N messages with them (20)
/help          this
/quit          leave (so do Ctrl-C and Ctrl-D)";

struct Chat {
    me: UserId,
    client: Client,
    events: Events,
    screen: Screen,
    /// Whom we talk to; the prompt shows it, on the thread that edits lines.
    peer: Arc<Mutex<Option<UserId>>>,
    /// Who is meant by a conversation, as far as we have met them.
    people: BTreeMap<ConversationId, UserId>,
    /// Our last message in each conversation, and how far it is known to have come.
    sent: BTreeMap<ConversationId, (Seq, Option<ReceiptKind>)>,
    connected: bool,
    complained: bool,
    server: String,
}

/// Where lines go: above the line that is being edited, or just out.
struct Screen {
    printer: Option<Printer>,
    next: Option<std::sync::mpsc::Sender<()>>,
}

impl Screen {
    fn line(&mut self, text: &str) {
        match &mut self.printer {
            Some(print) => print(format!("{text}\n")),
            None => println!("{text}"),
        }
    }
}

/// The chat is over; whether all was well.
struct Over(bool);

pub(crate) async fn run(args: &Args) -> ExitCode {
    let (client, events) = match setup::start(args).await {
        Ok(started) => started,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let peer = Arc::new(Mutex::new(None));
    let (lines, screen) = open_input(&args.user, &peer);
    let mut chat = Chat {
        me: args.user.clone(),
        client,
        events,
        screen,
        peer,
        people: BTreeMap::new(),
        sent: BTreeMap::new(),
        connected: false,
        complained: false,
        server: args.server.clone(),
    };
    let Over(well) = chat.serve(lines).await;
    chat.events.done();
    if tokio::time::timeout(PATIENCE, flush(&chat.client, &mut chat.events)).await.is_err() {
        chat.screen.line("Not everything is sent yet; the next start sends the rest.");
    }
    chat.client.close().await;
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A person edits lines; a pipe just has them.
fn open_input(me: &UserId, peer: &Arc<Mutex<Option<UserId>>>) -> (mpsc::Receiver<Line>, Screen) {
    if !input::is_interactive() {
        return (input::lines(), Screen { printer: None, next: None });
    }
    let (me, peer) = (me.clone(), peer.clone());
    let prompt = move || match &*peer.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(peer) => format!("{me} -> {peer}: "),
        None => format!("{me}: "),
    };
    match input::edited(prompt) {
        Ok(desk) => (desk.lines, Screen { printer: Some(desk.printer), next: Some(desk.next) }),
        // A terminal that cannot be edited on still has lines.
        Err(_) => (input::lines(), Screen { printer: None, next: None }),
    }
}

/// Waits for the last acknowledgements. Events are read on, so that those get through.
async fn flush(client: &Client, events: &mut Events) {
    let mut flushed = std::pin::pin!(client.flush());
    loop {
        tokio::select! {
            () = &mut flushed => return,
            event = events.next() => if event.is_none() { return },
        }
    }
}

impl Chat {
    async fn serve(&mut self, mut lines: mpsc::Receiver<Line>) -> Over {
        self.screen.line(&format!("Connecting to {} as {} ...", self.server, self.me));
        let mut stop = std::pin::pin!(crate::asked_to_stop());
        loop {
            let outcome = tokio::select! {
                () = &mut stop => return Over(true),
                event = self.events.next() => self.event(event).await,
                line = lines.recv() => match line {
                    None => return Over(true),
                    Some(Line::Unusable(why)) => {
                        self.screen.line(&why);
                        Ok(())
                    }
                    Some(Line::Text(text)) => {
                        let outcome = self.line(text.trim()).await;
                        if outcome.is_ok() && let Some(next) = &self.screen.next {
                            let _ = next.send(());
                        }
                        outcome
                    }
                },
            };
            if let Err(over) = outcome {
                if !over.0 && self.screen.next.is_some() {
                    // The terminal is being edited on; it comes back with the line.
                    self.screen.line("Press Enter to leave.");
                    lines.recv().await;
                }
                return over;
            }
        }
    }

    // --- what the person types ---

    async fn line(&mut self, line: &str) -> Result<(), Over> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "" => {}
            "/quit" | "/q" => return Err(Over(true)),
            "/help" | "/h" => self.screen.line(HELP),
            "/to" => self.address(rest.trim()),
            "/history" => self.history(rest.trim()).await,
            _ if command.starts_with('/') => {
                self.screen.line(&format!("There is no {command}. What there is:\n{HELP}"));
            }
            _ => self.say(line).await,
        }
        Ok(())
    }

    fn peer(&self) -> Option<UserId> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom we talk to, or a word about how to say it.
    fn addressed(&mut self) -> Option<UserId> {
        let peer = self.peer();
        if peer.is_none() {
            self.screen.line("To whom? Type /to and a name first, for instance: /to bob");
        }
        peer
    }

    fn address(&mut self, name: &str) {
        match UserId::parse(name) {
            Err(error) => self.screen.line(&format!("{error}; type for instance: /to bob")),
            Ok(user) => {
                self.people.insert(ConversationId::one_to_one(&self.me, &user), user.clone());
                let text = format!("What you type goes to {user} now.");
                *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(user);
                self.screen.line(&text);
            }
        }
    }

    async fn say(&mut self, text: &str) {
        let Some(peer) = self.addressed() else { return };
        if let Err(error) = self.client.send(peer, text).await {
            self.screen.line(&format!("Not sent: {error}"));
        } else if !self.connected {
            self.screen.line("(kept; it is sent as soon as there is a connection)");
        }
    }

    async fn history(&mut self, count: &str) {
        let Some(peer) = self.addressed() else { return };
        let count = match count {
            "" => HISTORY,
            count => match count.parse::<u32>() {
                Ok(count) => count.clamp(1, MAX_HISTORY),
                Err(_) => {
                    self.screen.line("How many? Type for instance: /history 50");
                    return;
                }
            },
        };
        if !self.connected {
            self.screen.line("There is no connection; history has to wait.");
            return;
        }
        let client = self.client.clone();
        // The answer needs events to be read on if much has just arrived; the client bounds that.
        let asked =
            tokio::time::timeout(PATIENCE, client.latest(Target::User(peer.clone()), count));
        match asked.await {
            Err(_) => self.screen.line("No answer; try again."),
            Ok(Ok(history)) if history.messages.is_empty() => self.no_history(&peer),
            Ok(Ok(history)) => {
                for message in history.messages.iter().rev() {
                    let line = format!("  {}", self.describe(message));
                    self.screen.line(&line);
                }
            }
            Ok(Err(error)) if error.code() == Some(Code::UnknownConversation) => {
                self.no_history(&peer);
            }
            Ok(Err(HistoryError::Refused { reason, .. })) => self.screen.line(&reason),
            Ok(Err(error)) => self.screen.line(&error.to_string()),
        }
    }

    fn no_history(&mut self, peer: &UserId) {
        self.screen.line(&format!("You and {peer} have not talked yet."));
    }

    // --- what happens ---

    async fn event(&mut self, event: Option<Event>) -> Result<(), Over> {
        let Some(event) = event else { return Err(Over(false)) };
        match event {
            Event::Connected { user, device, .. } => {
                self.connected = true;
                self.complained = false;
                self.screen.line(&format!("Connected as {user} ({device})."));
                if self.peer().is_none() {
                    self.screen.line("Type /to and a name to talk to somebody, or /help.");
                }
            }
            Event::Reconnected { .. } => {
                self.connected = true;
                self.complained = false;
                self.screen.line("Connected again.");
            }
            Event::Disconnected { reason, retry_in, .. } => {
                return self.disconnected(&reason, retry_in.is_some());
            }
            Event::Message { message, sent_here } => self.message(&message, sent_here).await,
            Event::Acked { conversation, seq, .. } => {
                self.sent.insert(conversation, (seq, None));
                self.screen.line(&format!("   #{seq} stored"));
            }
            Event::Rejected { reason, .. } => self.screen.line(&format!("Refused: {reason}")),
            Event::Postponed { reason, .. } => {
                self.screen.line(&format!("Not yet: {reason}; it is tried again."));
            }
            Event::Receipt { conversation, kind, user, seq } => {
                self.receipt(conversation, kind, &user, seq);
            }
            Event::Skipped { from, to, .. } => {
                self.screen.line(&format!("(messages {from} to {to} are gone)"));
            }
            Event::StoreReset { .. } => {
                self.screen.line("(the gateway's store was replaced: numbers start anew)");
            }
            Event::Notice { text } => self.screen.line(&format!("*** {}", printable(&text))),
            Event::Error { reason, .. } => self.screen.line(&format!("({reason})")),
            _ => {}
        }
        Ok(())
    }

    async fn message(&mut self, message: &Message, sent_here: bool) {
        if message.sender != self.me {
            self.people.insert(message.conversation, message.sender.clone());
        }
        if !sent_here {
            let line = self.describe(message);
            self.screen.line(&line);
            // It is on the screen.
            let _ = self.client.mark_read(message.conversation, message.seq).await;
            if self.peer().is_none() && message.sender != self.me {
                self.screen.line(&format!("(to answer, type: /to {})", message.sender));
            }
        }
        self.events.done();
    }

    fn describe(&self, message: &Message) -> String {
        let to = match self.people.get(&message.conversation) {
            Some(person) if message.sender == self.me => format!(" to {person}"),
            _ => String::new(),
        };
        let text = match message.text() {
            Some(text) => printable(text),
            None => format!("({} bytes of {})", message.payload.len(), message.content_type),
        };
        format!("{} {}{to}: {text}", local_time(message.time_ms), message.sender)
    }

    /// Says how far our last message has come, each step once.
    fn receipt(
        &mut self,
        conversation: ConversationId,
        kind: ReceiptKind,
        user: &UserId,
        seq: Seq,
    ) {
        if *user == self.me {
            return;
        }
        let Some((own, known)) = self.sent.get_mut(&conversation) else { return };
        if seq < *own || *known >= Some(kind) {
            return;
        }
        *known = Some(kind);
        let what = match kind {
            ReceiptKind::Delivered => "delivered to",
            ReceiptKind::Read => "read by",
        };
        let line = format!("   #{own} {what} {user}");
        self.screen.line(&line);
    }

    fn disconnected(&mut self, reason: &str, retry: bool) -> Result<(), Over> {
        let was = std::mem::replace(&mut self.connected, false);
        if !retry {
            self.screen.line(&format!("The gateway has ended this chat: {reason}"));
            return Err(Over(false));
        }
        if !std::mem::replace(&mut self.complained, true) {
            if was {
                self.screen.line(&format!("Connection lost ({reason}); reconnecting ..."));
            } else {
                let (server, advice) = (&self.server, setup::advice(reason));
                self.screen.line(&format!(
                    "No connection to {server} yet: {reason};\n{advice}. Trying again ..."
                ));
            }
        }
        Ok(())
    }
}

/// Text of others as it may go to a terminal: without what could move the cursor.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

/// Hours, minutes and seconds here.
fn local_time(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match at {
        None => "--:--:--".into(),
        Some(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\tc\nd"), "a\u{fffd}[2Jb\u{fffd}\tc\nd");
    }
}
