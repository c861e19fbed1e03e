//! The tuner of an engine: which weights it gets, and what they say of the engine's steps.

use super::EngineOptions;
use crate::cost::Predicted;
use crate::decoder::Decoder;
use crate::error::Error;
use crate::gpu::Gpu;
use crate::kv_cache::KvShape;
use crate::ops::{Dtype, Kernels};
use crate::plan::Planner;
use crate::schedules::{AdapterKey, Level, LinearChoice, Measure, Mode, ProductKey, Tuner, adapter_type, find};
use crate::tune::{Calibration, Inputs};
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Has the planner choose as the options say, and tells once by what.
///
/// # Errors
/// If products are to be measured and the adapter is lost or has no room.
pub(super) fn tune(gpu: &Gpu, kernels: &mut Kernels, decoder: &Decoder, options: &EngineOptions) -> Result<(), Error> {
    let (summary, terms) = (gpu.summary(), kernels.planner.terms());
    let key = AdapterKey {
        adapter_type: adapter_type(&summary.name, gpu.limits()),
        driver: format!("{} {}", summary.driver, summary.driver_info).trim().to_owned(),
        class: terms.class,
    };
    let tuner = match options.tuner {
        Mode::Off => Tuner::off(),
        mode => {
            let found = find(&key, options.tuner_dir.as_deref());
            found.warnings.iter().for_each(|warning| log::warn!("tuner: {warning}"));
            let measured = options.dtype == Dtype::default() || !gpu.limits().shader_f16;
            Tuner::new(mode, options.calibrate, found.for_inputs(measured, terms.int8))
        }
    };
    tell(&tuner, &key);
    let measures = tuner.mode() == Mode::Exhaustive || tuner.mode() == Mode::Predict && tuner.calibrates();
    let inputs = Inputs { dtype: options.dtype, int8_activations: terms.int8 };
    let mut calibration = if measures || options.deterministic { Some(Calibration::new(gpu, inputs)?) } else { None };
    let products: Vec<ProductKey> = decoder.products().into_iter().map(|(key, _)| key).collect();
    let planner = &mut kernels.planner;
    planner.tune(tuner, &products, measured_by(&mut calibration, measures));
    if options.deterministic && planner.tuner().mode() != Mode::Off {
        let mut refused: Vec<LinearChoice> = Vec::new();
        loop {
            let found = out_of_order(planner, calibration.as_mut())?;
            let Some(choice) = found.iter().find(|choice| !refused.contains(choice)) else { break };
            log::info!("tuner: {} sums in another order here: a deterministic run does without", choice.candidate());
            refused.extend(found);
            planner.retune(&refused, &products, measured_by(&mut calibration, measures));
        }
    }
    Ok(())
}

fn measured_by(calibration: &mut Option<Calibration>, measures: bool) -> Option<&mut dyn Measure> {
    calibration.as_mut().filter(|_| measures).map(|calibration| calibration as &mut dyn Measure)
}

/// The choices of the table that do not compute the very bits that the rules' do.
fn out_of_order(planner: &Planner, calibration: Option<&mut Calibration>) -> Result<Vec<LinearChoice>, Error> {
    let mut refused: Vec<LinearChoice> = Vec::new();
    let Some(calibration) = calibration else { return Ok(refused) };
    for (product, choice) in planner.table().chosen() {
        let usual = planner.linear_rules(&product.at(1));
        if *choice != usual && !refused.contains(choice) && !calibration.same_bits(product, choice, &usual)? {
            refused.push(choice.clone());
        }
    }
    Ok(refused)
}

/// Says what is not measured here, each thing once, however many engines are opened.
fn tell(tuner: &Tuner, key: &AdapterKey) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if tuner.mode() == Mode::Off {
        return;
    }
    let mut notes = tuner.notes().to_vec();
    let levels = tuner.levels();
    let levels = [levels.linear_few, levels.linear_many, levels.attention_vector, levels.attention_tile];
    if levels.iter().all(|level| *level == Level::Defaults) {
        let (adapter_type, class) = (&key.adapter_type, key.class);
        notes.push(format!(
            "no weights serve {adapter_type} ({class:?}): rules choose schedules; `raglan tune` measures"
        ));
    }
    for note in notes {
        if TOLD.lock().insert(note.clone()) {
            log::warn!("tuner: {note}");
        }
    }
}

/// What the planner's tables and models say of the times of steps.
pub(super) fn predicted(planner: &Planner, decoder: &Decoder, shape: &KvShape, max_sequences: usize) -> Predicted {
    let mut products: Vec<(ProductKey, bool, usize)> = Vec::new();
    for (key, of_logits) in decoder.products() {
        match products.iter_mut().find(|(known, same, _)| (*known, *same) == (key, of_logits)) {
            Some((.., count)) => *count += 1,
            None => products.push((key, of_logits, 1)),
        }
    }
    planner.predicted(&products, &shape.group_layers(), max_sequences)
}
