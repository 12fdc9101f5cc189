//! Schedules: their ends, that they fall or rise, and that a run which is resumed goes on as if it had not stopped.

use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer, VarMap};
use candle_reparam::schedules::{
    Cosine, Exponential, Linear, PiecewiseConstant, Schedule, Scheduler,
};
use std::collections::HashMap;
use std::path::PathBuf;

use crate::support::refused;

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("reparam-{name}-{}.safetensors", std::process::id()))
}

#[test]
fn exponential_falls_to_its_floor_and_stays() {
    let tau = Exponential::new(2.0, 0.999_995, 0.5).unwrap();
    assert_eq!(tau.value(0), 2.0);
    assert_eq!(tau.value(1), 2.0 * 0.999_995);
    // 2 * 0.999995^100000, from mpmath; the rounding of 0.999995 counts 100,000 times
    assert!((tau.value(100_000) - 1.213_059_803_094_510_8).abs() < 1e-10);
    let last = (1..500_000).step_by(997).fold(2.0, |last, step| {
        let now = tau.value(step);
        assert!(now < last || now == 0.5, "{step}: {now} {last}");
        now
    });
    assert_eq!(last, 0.5);
    for step in [278_000, 1_000_000, u64::MAX] {
        assert_eq!(tau.value(step), 0.5);
    }
    assert!(tau.value(277_000) > 0.5);
    let never = Exponential::new(1.0, 1.0, 0.0).unwrap();
    assert_eq!(never.value(u64::MAX), 1.0);
    let rate = Exponential::with_rate(1.0, 3e-5, 0.5).unwrap();
    assert!((rate.value(10_000) - (-0.3f64).exp()).abs() < 1e-12);
}

#[test]
fn linear_and_cosine_go_from_end_to_end() {
    type Make = fn(f64, f64, u64) -> Box<dyn Schedule>;
    let schedules: [(&str, Make); 2] = [
        ("linear", |a, b, n| Box::new(Linear::new(a, b, n).unwrap())),
        ("cosine", |a, b, n| Box::new(Cosine::new(a, b, n).unwrap())),
    ];
    for (label, make) in schedules {
        for (start, end) in [(0.1, 0.7), (0.7, 0.1), (-1e300, 1e300), (0.3, 0.3)] {
            for steps in [1, 2, 7, 1000] {
                let schedule = make(start, end, steps);
                assert_eq!(schedule.value(0), start, "{label}");
                for after in [steps, steps + 1, u64::MAX] {
                    assert_eq!(schedule.value(after), end, "{label}");
                }
                for step in 0..steps {
                    let (now, next) = (schedule.value(step), schedule.value(step + 1));
                    if start < end {
                        assert!(now < next, "{label} {step}: {now} {next}");
                    } else if start > end {
                        assert!(now > next, "{label} {step}: {now} {next}");
                    } else {
                        assert_eq!(now, next);
                    }
                }
                // both are symmetric about the middle
                if steps % 2 == 0 && start.abs() < 1.0 {
                    let middle = schedule.value(steps / 2);
                    assert!(
                        (middle - (start + end) / 2.0).abs() < 1e-15,
                        "{label} {middle}"
                    );
                    let quarter = schedule.value(steps / 4) + schedule.value(steps - steps / 4);
                    assert!((quarter - (start + end)).abs() < 1e-14, "{label}");
                }
            }
        }
    }
    assert_eq!(Linear::new(0.0, 1.0, 8).unwrap().value(3), 0.375);
    // torch's CosineAnnealingLR: eta_min + (base - eta_min) (1 + cos(pi t / T)) / 2
    let cosine = Cosine::new(1.0, 0.2, 10).unwrap();
    for t in 0..=10_u32 {
        let want = 0.2 + 0.8 * (1.0 + (std::f64::consts::PI * f64::from(t) / 10.0).cos()) / 2.0;
        assert!((cosine.value(t.into()) - want).abs() < 1e-15);
    }
}

#[test]
fn piecewise_constant_changes_where_it_says() {
    let rate = PiecewiseConstant::new(1.0, &[(3, 0.5), (4, 0.25), (9, 2.0)]).unwrap();
    let values: Vec<f64> = (0..11).map(|step| rate.value(step)).collect();
    assert_eq!(
        values,
        [1., 1., 1., 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 2., 2.]
    );
    assert_eq!(rate.value(u64::MAX), 2.0);
    assert_eq!(PiecewiseConstant::new(1.5, &[]).unwrap().value(7), 1.5);
}

#[test]
fn a_held_schedule_is_looked_at_every_so_often() {
    let held = Exponential::new(1.0, 0.9, 0.0).unwrap().every(500).unwrap();
    assert_eq!(held.value(499), 1.0);
    assert_eq!(held.value(500), 0.9f64.powf(500.0));
    assert_eq!(held.value(999), held.value(500));
    let boxed: Box<dyn Schedule> = Box::new(held);
    assert_eq!(boxed.value(1000), 0.9f64.powf(1000.0));
    assert_eq!(0.7.value(123), 0.7);
}

#[test]
fn a_resumed_run_has_the_values_of_one_that_was_not_stopped() {
    let make = || Scheduler::new(Exponential::new(2.0, 0.999, 0.5).unwrap());
    let mut whole = make();
    let values: Vec<u64> = (0..3000).map(|_| whole.step().to_bits()).collect();
    let path = file("resumed");
    let mut first = make();
    let mut got: Vec<u64> = (0..1234).map(|_| first.step().to_bits()).collect();
    first.save(&path, "tau").unwrap();
    let mut second = make();
    second.load(&path, "tau").unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(second, first);
    got.extend((1234..3000).map(|_| second.step().to_bits()));
    assert_eq!(got, values);
}

#[test]
fn several_states_share_a_file_with_weights() {
    let vars = VarMap::new();
    let w = vars
        .get(
            3,
            "w",
            candle_nn::Init::Const(0.5),
            DType::F32,
            &Device::Cpu,
        )
        .unwrap();
    let mut optimizer = AdamW::new_lr(vars.all_vars(), 0.1).unwrap();
    let mut rate = Scheduler::new(Linear::new(0.1, 0.0, 10).unwrap());
    let mut tau = Scheduler::new(Cosine::new(1.0, 0.1, 10).unwrap());
    for _ in 0..4 {
        optimizer.set_learning_rate(rate.value());
        optimizer
            .backward_step(&w.sqr().unwrap().sum_all().unwrap())
            .unwrap();
        rate.step();
        tau.step();
    }
    tau.set_step(1 << 60); // more than a float or an f64 cast would keep beside 1
    tau.step();
    let mut state: HashMap<String, Tensor> = HashMap::new();
    for (name, var) in vars.data().lock().unwrap().iter() {
        state.insert(name.clone(), var.as_tensor().clone());
    }
    state.extend(rate.state("rate").unwrap());
    state.extend(tau.state("tau").unwrap());
    let path = file("shared");
    candle_core::safetensors::save(&state, &path).unwrap();
    let loaded = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    // what VarMap::load reads is not disturbed by the other entries
    let mut again = VarMap::new();
    again
        .get(
            3,
            "w",
            candle_nn::Init::Const(0.0),
            DType::F32,
            &Device::Cpu,
        )
        .unwrap();
    again.load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        again.all_vars()[0].to_vec1::<f32>().unwrap(),
        w.to_vec1::<f32>().unwrap()
    );
    let mut rate_again = Scheduler::new(Linear::new(0.1, 0.0, 10).unwrap());
    let mut tau_again = Scheduler::new(Cosine::new(1.0, 0.1, 10).unwrap());
    rate_again.restore(&loaded, "rate").unwrap();
    tau_again.restore(&loaded, "tau").unwrap();
    assert_eq!((rate_again, tau_again), (rate, tau));
    assert_eq!(tau_again.current_step(), (1 << 60) + 1);
}

#[test]
fn a_state_that_is_none_is_refused() {
    let mut tau = Scheduler::new(1.0);
    tau.set_step(9);
    let name = "Scheduler::restore";
    refused(tau.restore(&HashMap::new(), "tau"), name, &["tau.step"]);
    let wrong = Tensor::new(3f32, &Device::Cpu).unwrap();
    let state = HashMap::from([("tau.step".to_string(), wrong)]);
    refused(tau.restore(&state, "tau"), name, &["tau.step", "F32", "[]"]);
    assert_eq!(tau.current_step(), 9);
    assert!(tau.load(file("absent"), "tau").is_err());
    tau.set_step(u64::MAX);
    tau.step();
    assert_eq!(tau.current_step(), u64::MAX);
}

#[test]
fn parameters_that_make_no_schedule_are_refused() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for (start, decay, floor, parts) in [
        (0.0, 0.9, 0.0, ["start", "0"]),
        (nan, 0.9, 0.0, ["start", "NaN"]),
        (inf, 0.9, 0.0, ["start", "inf"]),
        (1.0, 0.0, 0.0, ["decay", "0"]),
        (1.0, 1.1, 0.0, ["decay", "1.1"]),
        (1.0, nan, 0.0, ["decay", "NaN"]),
        (1.0, 0.9, -0.1, ["floor", "-0.1"]),
        (1.0, 0.9, 1.5, ["floor", "1.5"]),
        (1.0, 0.9, nan, ["floor", "NaN"]),
    ] {
        refused(Exponential::new(start, decay, floor), "Exponential", &parts);
    }
    refused(
        Exponential::with_rate(1.0, -1.0, 0.0),
        "Exponential",
        &["rate", "-1"],
    );
    for bad in [nan, inf] {
        refused(Linear::new(bad, 1.0, 1), "Linear", &["start"]);
        refused(Linear::new(1.0, bad, 1), "Linear", &["end"]);
        refused(Cosine::new(bad, 1.0, 1), "Cosine", &["start"]);
        refused(Cosine::new(1.0, bad, 1), "Cosine", &["end"]);
        refused(
            PiecewiseConstant::new(bad, &[]),
            "PiecewiseConstant",
            &["start"],
        );
        let name = "PiecewiseConstant";
        refused(PiecewiseConstant::new(1.0, &[(5, bad)]), name, &["step 5"]);
    }
    refused(Linear::new(0.0, 1.0, 0), "Linear", &["steps", "0"]);
    refused(Cosine::new(0.0, 1.0, 0), "Cosine", &["steps", "0"]);
    refused(1.0.every(0), "Schedule::every", &["steps", "0"]);
    for changes in [
        &[(0, 1.0)][..],
        &[(5, 1.0), (5, 2.0)],
        &[(5, 1.0), (4, 2.0)],
    ] {
        refused(
            PiecewiseConstant::new(1.0, changes),
            "PiecewiseConstant",
            &["later step"],
        );
    }
}
