use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::operation::Operation;
use crate::outcome::{Phase, Point, PointOperation};
use crate::record::Recording;
use crate::run::Stage;
use crate::sample;

/// A target that tells of its process.
fn target() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let asked: Vec<String> =
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let body = match asked.first().is_some_and(|line| line.starts_with("GET /figures ")) {
                true => "process_cpu_seconds_total 3\nprocess_resident_memory_bytes 4096\n",
                false => "",
            };
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", body.len());
            let _ = write!(stream, "{head}\r\n\r\n{body}");
        }
    });
    format!("http://{address}/figures")
}

fn second(count: u64) -> Point {
    let mut recording = Recording::new();
    (0..count).for_each(|_| recording.success(Operation::SendAck, 1500, 1500));
    let operations = recording.iter().map(|(name, record)| (name, PointOperation::of(record)));
    Point { phase: Phase::Measured, operations: operations.collect(), ..Point::default() }
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !until() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The one test that runs Goose: it has one kill switch for the whole process.
#[test]
fn goose_lets_the_run_on_and_reports_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(PAGE), "older").unwrap();
    let plan = sample::empty().plan;
    let objectives = ["p99(send_ack)<1us", "lost==0"].map(|text| text.parse().unwrap());
    let scraped = Scraped::default();
    let url = MetricsUrl::parse(&target()).unwrap();
    let options = Options {
        folder: folder.path(),
        plan: &plan,
        objectives: &objectives,
        target: Some((url, scraped.clone())),
    };
    let mut control = Control::new(options).unwrap();
    assert!(!folder.path().join(PAGE).exists());
    let (gate, mut listener) = (control.gate(), control.listener());
    control.launch().unwrap();
    for stage in [Stage::Start, Stage::Load] {
        gate.arrive(stage);
        wait("the run is let on", || gate.opened(stage).is_some());
    }
    listener(&second(7));
    listener(&second(4));
    let known = crate::health::Target::Scraped(scraped);
    wait("the target is asked", || known.usage().is_some());
    assert_eq!(known.usage().map(|usage| usage.rss), Some(4096));
    assert!(!control.has_ended());
    control.finish().unwrap();

    let json = std::fs::read_to_string(folder.path().join(JSON)).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let rows = json["raw_request_metrics"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == "send_ack").unwrap();
    assert_eq!(row["number_of_requests"], 11, "{row}");
    let page = std::fs::read_to_string(folder.path().join(PAGE)).unwrap();
    for word in ["measured", "send_ack", "figures of the target", "p99&lt;1us", "chat"] {
        assert!(page.contains(word), "{word}");
    }
}

#[test]
fn addresses_are_split_as_goose_takes_them() {
    let parts = |text: &str| MetricsUrl::parse(text).map(|url| (url.base, url.path));
    let both = |base: &str, path: &str| Some((base.to_owned(), path.to_owned()));
    assert_eq!(parts("http://10.0.0.5:9464/a?b=c"), both("http://10.0.0.5:9464", "/a?b=c"));
    assert_eq!(parts("https://host"), both("https://host", "/metrics"));
    for wrong in ["", "host:9464", "ftp://host/", "http://", "/metrics"] {
        assert_eq!(parts(wrong), None, "{wrong}");
    }
}
