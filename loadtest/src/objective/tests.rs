use proptest::prelude::*;

use super::*;
use crate::outcome::StepCounts;
use crate::sample;

fn judge(text: &str) -> Verdict {
    text.parse::<Objective>().unwrap().judge(&sample::chat())
}

fn why(text: &str) -> String {
    text.parse::<Objective>().unwrap_err().why
}

#[test]
fn objectives_are_judged_by_what_was_measured() {
    for holds in [
        "p50(send_ack)<1ms",
        "p99.9(send_ack) < 1 s",
        "p50(send_ack,service)<400us",
        "max(send_ack)>=89ms",
        "mean(deliver)<5ms",
        "count(send_ack)==15_000",
        "rate==500",
        "rate(deliver)>=499.9",
        "errors(send_ack)==2",
        "errors==2",
        "error_rate<1%",
        "error_rate(send_ack)<0.001",
        "late==5",
        "dropped(send_ack)<=2",
        "connected>=2000",
        "lost==0",
        "sessions_lost == 0",
        "sent!=0",
        "gateway_bytes_per_session<=12KB",
        "generator_bytes_per_session<12KiB",
        "p99(connect)<10ms",
    ] {
        assert!(judge(holds).holds, "{holds}: {:?}", judge(holds));
    }
    for missed in ["p50(send_ack)<400us", "connected>2000", "lost>0", "error_rate<0.001%"] {
        assert!(!judge(missed).holds, "{missed}: {:?}", judge(missed));
    }
}

#[test]
fn what_was_not_measured_is_missed_either_way() {
    for text in ["p99(sync)<1s", "p99(sync)>1s", "errors(resume)==0"] {
        let verdict = judge(text);
        assert_eq!((verdict.holds, verdict.measured), (false, None), "{text}");
        assert_eq!(verdict.shown, "not measured");
    }
    let outcome = sample::empty();
    let memory: Objective = "gateway_bytes_per_session<1MB".parse().unwrap();
    assert!(!memory.judge(&outcome).holds);
}

#[test]
fn a_step_is_judged_by_what_it_measured() {
    let outcome = sample::chat();
    let step = Step {
        load: 600.0,
        throughput: outcome.throughput,
        measured: outcome.measured.clone(),
        counts: Some(StepCounts {
            sessions: Sessions { connected: 2_000, lowest: 1_990, lost: 10, ..Sessions::default() },
            correctness: Correctness { sent: 18_000, lost: 3, ..Correctness::default() },
        }),
        ..Step::default()
    };
    let judge = |text: &str| text.parse::<Objective>().unwrap().judge_step(&step, 30.0);
    let holds = |text| judge(text).map(|verdict| verdict.holds);
    assert_eq!(holds("p50(send_ack)<1ms"), Some(true));
    assert_eq!(holds("p50(send_ack)<1us"), Some(false));
    assert_eq!(holds("rate>=500"), Some(true));
    assert_eq!(holds("rate(send_ack)==500"), Some(true));
    assert_eq!(holds("p50(sync)<1s"), Some(false));
    for (text, expected) in [
        ("lost==0", false),
        ("lost==3", true),
        ("sessions_lost==0", false),
        ("connected>=2000", true),
        ("lowest>=2000", false),
        ("sent==18_000", true),
    ] {
        assert_eq!(holds(text), Some(expected), "{text}");
    }
    // Read before the first step: it is judged at the end.
    assert_eq!(holds("gateway_bytes_per_session<1MB"), None);
    // The run's verdict is about the last good step, as its figures are.
    let mut whole = outcome.clone();
    whole.steps = vec![step.clone()];
    assert!("lost==3".parse::<Objective>().unwrap().judge(&whole).holds);
    whole.steps[0].broken.push("p99".into());
    assert!("lost==0".parse::<Objective>().unwrap().judge(&whole).holds, "no step is good");
}

#[test]
fn a_wrong_objective_is_told_what_would_be_right() {
    let nearest = "the nearest right one is";
    for (text, expected) in [
        ("p99(send_ack)", "write it like p99(send_ack)<50ms".to_owned()),
        ("p99(send_ack)=5ms", "with <, <=, >, >=, == or !=".to_owned()),
        ("p99(send_akc)<5ms", format!("`send_akc`; {nearest} `send_ack`")),
        ("p99<5ms", "of which operation: p99(send_ack)".to_owned()),
        ("p101(send_ack)<5ms", "`p101` is no percentile".to_owned()),
        ("p99(send_ack<5ms", "a closing bracket is missing".to_owned()),
        ("p99(send_ack,user)<5ms", "neither response nor service".to_owned()),
        ("p99(send_ack)<5", "`5` should be a time with its unit".to_owned()),
        ("los==0", format!("`los` is measured; {nearest} `lost`")),
        ("lost(send_ack)==0", "leave the bracket out".to_owned()),
        ("lost==none", "`none` should be a number".to_owned()),
        ("error_rate<5", "`5` should be a share".to_owned()),
        ("gateway_bytes_per_session<small", "a number of bytes".to_owned()),
        ("", "write it like".to_owned()),
    ] {
        assert!(why(text).contains(&expected), "{text}: {}", why(text));
    }
}

/// 99.9 / 100 is a little more than 0.999, which can be the next value of a histogram.
#[test]
fn a_percentile_is_the_quantile_that_reports_use() {
    for (text, quantile) in [("p99.9", 0.999), ("p99.99", 0.9999), ("p50", 0.5), ("p100", 1.0)] {
        let objective: Objective = format!("{text}(sync)<1s").parse().unwrap();
        let expected =
            Quantity::Latency(Statistic::Quantile(quantile), Operation::Sync, Clock::Response);
        assert_eq!(objective.quantity, expected);
    }
}

#[test]
fn times_are_shown_with_three_digits() {
    let shown = [0.0, 7.0, 873.4, 4_321.0, 43_210.0, 432_100.0, 4_321_000.0].map(show_us);
    assert_eq!(shown, ["0 us", "7 us", "873 us", "4.32 ms", "43.2 ms", "432 ms", "4.32 s"]);
}

proptest! {
    /// Whatever is typed, the answer is an objective or a message.
    #[test]
    fn no_text_panics(text in "[a-z0-9.()<>=!%,_ ]{0,40}") {
        let _ = text.parse::<Objective>().map_err(|error| error.to_string());
    }

    /// A time means the same in every unit.
    #[test]
    fn units_of_time_agree(us in 1u64..10_000_000) {
        let bound = |text: String| text.parse::<Objective>().unwrap().bound;
        let plain = bound(format!("p50(sync)<{us}us"));
        prop_assert!((plain - us as f64).abs() < 0.01);
        let ms = bound(format!("p50(sync)<{}.{:03}ms", us / 1000, us % 1000));
        prop_assert!((plain - ms).abs() < 0.01);
    }
}
