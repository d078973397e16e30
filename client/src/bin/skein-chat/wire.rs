//! The commands and events of `--json`, as docs/skein-chat.md describes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use skein_client::{Content, Message, Seq};

/// What a command looks like, for those who got it wrong.
const EXPECTED: &str = r#"expected one of {"cmd":"send","to":"bob","text":"hi","id":"optional"}, {"cmd":"history","with":"bob","from":1,"to":50}, {"cmd":"read","with":"bob","seq":7}, {"cmd":"quit"}"#;

/// One line of standard input.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Command {
    /// Send a message.
    Send {
        to: String,
        #[serde(default)]
        text: Option<String>,
        /// Instead of `text`.
        #[serde(default)]
        base64: Option<String>,
        #[serde(default)]
        content_type: String,
        #[serde(default)]
        id: Option<String>,
    },
    /// Show a part of the past.
    History {
        with: String,
        /// Default: from the first.
        #[serde(default)]
        from: Seq,
        /// Default: to the last.
        #[serde(default)]
        to: Seq,
    },
    /// The user has read up to here.
    Read { with: String, seq: Seq },
    /// Leave.
    Quit,
}

impl Command {
    /// Reads one line.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| format!("{error}; {EXPECTED}"))
    }
}

/// The content of a send.
pub(crate) fn content(
    text: Option<String>,
    base64: Option<String>,
    content_type: String,
) -> Result<Content, String> {
    let payload = match (text, base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(base64)) => {
            BASE64.decode(base64).map_err(|error| format!("base64: {error}"))?
        }
        _ => return Err("a send needs either \"text\" or \"base64\"".into()),
    };
    Ok(Content { content_type, payload: payload.into() })
}

/// One line of standard output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    Ready {
        user: String,
        device: String,
    },
    Queued {
        id: String,
    },
    Acked {
        id: String,
        conversation: String,
        seq: Seq,
    },
    Message(Shown),
    History {
        with: String,
        messages: Vec<Shown>,
        is_end: bool,
    },
    Receipt {
        conversation: String,
        kind: &'static str,
        user: String,
        seq: Seq,
    },
    Disconnected {
        reason: String,
    },
    Reconnected {},
    Notice {
        text: String,
    },
    Error {
        code: u64,
        retry: bool,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
}

/// A message as scripts see it. Either `text` or `base64` is there.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    conversation: String,
    seq: Seq,
    from: String,
    device: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_type: String,
    time: u64,
}

impl From<Message> for Shown {
    fn from(message: Message) -> Self {
        let text = message.text().map(str::to_owned);
        let base64 = text.is_none().then(|| BASE64.encode(&message.payload));
        Self {
            conversation: message.conversation.to_string(),
            seq: message.seq,
            from: message.sender.to_string(),
            device: message.device.to_string(),
            id: message.id.to_string(),
            text,
            base64,
            content_type: message.content_type,
            time: message.time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_documented() {
        let send = Command::parse(r#"{"cmd":"send","to":"bob","text":"hi","id":"x"}"#);
        assert!(matches!(send, Ok(Command::Send { id: Some(id), .. }) if id == "x"));
        let history = Command::parse(r#"{"cmd":"history","with":"bob","from":1,"to":50}"#);
        assert_eq!(history, Ok(Command::History { with: "bob".into(), from: 1, to: 50 }));
        let read = Command::parse(r#"{"cmd":"read","with":"bob","seq":7}"#);
        assert_eq!(read, Ok(Command::Read { with: "bob".into(), seq: 7 }));
        assert_eq!(Command::parse(r#"{"cmd":"quit"}"#), Ok(Command::Quit));
    }

    #[test]
    fn what_is_wrong_is_told_what_would_be_right() {
        for wrong in ["hello", "{}", r#"{"cmd":"fly"}"#, r#"{"cmd":"send","too":"bob"}"#, "[1]"] {
            let error = Command::parse(wrong).unwrap_err();
            assert!(error.contains(r#"expected one of {"cmd":"send""#), "{error}");
        }
        assert!(content(None, None, String::new()).is_err());
        assert!(content(None, Some("!".into()), String::new()).is_err());
    }

    #[test]
    fn what_is_no_text_is_shown_in_base64() {
        let content = content(None, Some("/wA=".into()), "image/png".into()).unwrap();
        assert_eq!(&content.payload[..], [0xff, 0]);
        let event = Event::Error { code: 7, retry: true, message: "m".into(), id: None };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(line, r#"{"event":"error","code":7,"retry":true,"message":"m"}"#);
        let line = serde_json::to_string(&Event::Reconnected {}).unwrap();
        assert_eq!(line, r#"{"event":"reconnected"}"#);
    }
}
