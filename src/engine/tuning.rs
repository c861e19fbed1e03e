//! The tuner of an engine: which weights it gets, and what they say of the engine's steps.

use super::EngineOptions;
use crate::cost::Predicted;
use crate::decoder::Decoder;
use crate::error::Error;
use crate::gpu::Gpu;
use crate::ops::Kernels;
use crate::plan::Planner;
use crate::schedules::{AdapterKey, Level, Measure, Mode, ProductKey, Tuner, adapter_type, find};
use crate::tune::{Calibration, Inputs};

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
            Tuner::new(mode, options.calibrate, found)
        }
    };
    tell(&tuner, &key);
    let measures = tuner.mode() == Mode::Exhaustive || tuner.mode() == Mode::Predict && tuner.calibrates();
    let inputs = Inputs { dtype: options.dtype, int8_activations: terms.int8 };
    let mut calibration = if measures { Some(Calibration::new(gpu, inputs)?) } else { None };
    let products: Vec<ProductKey> = decoder.products().into_iter().map(|(key, _)| key).collect();
    kernels.planner.tune(tuner, &products, calibration.as_mut().map(|calibration| calibration as &mut dyn Measure));
    if options.deterministic && kernels.planner.tuner().mode() != Mode::Off {
        drop(calibration);
        if let Some(choice) = out_of_order(&kernels.planner, Calibration::new(gpu, inputs)?)? {
            log::warn!(
                "tuner: {choice} sums in another order here, so that rules choose schedules of this deterministic run"
            );
            kernels.planner.tune(Tuner::off(), &products, None);
        }
    }
    Ok(())
}

/// A choice of the table that does not compute the very bits that rules' choices do, if there is one.
fn out_of_order(planner: &Planner, mut calibration: Calibration) -> Result<Option<String>, Error> {
    for (product, choice) in planner.table().chosen() {
        let usual = planner.linear_rules(&product.at(1));
        if *choice != usual && !calibration.same_bits(product, choice, &usual)? {
            return Ok(Some(choice.candidate().to_string()));
        }
    }
    Ok(None)
}

fn tell(tuner: &Tuner, key: &AdapterKey) {
    if tuner.mode() == Mode::Off {
        return;
    }
    let levels = tuner.levels();
    let levels = [levels.linear_few, levels.linear_many, levels.attention_vector, levels.attention_tile];
    if levels.iter().all(|level| *level == Level::Defaults) {
        log::info!(
            "tuner: nothing was measured on {}, so that rules choose schedules; `raglan tune` measures",
            key.adapter_type
        );
    }
    for note in tuner.notes() {
        log::warn!("tuner: {note}");
    }
}

/// What the planner's tables and models say of the times of steps.
pub(super) fn predicted(planner: &Planner, decoder: &Decoder, max_sequences: usize) -> Predicted {
    let mut products: Vec<(ProductKey, bool, usize)> = Vec::new();
    for (key, of_logits) in decoder.products() {
        match products.iter_mut().find(|(known, same, _)| (*known, *same) == (key, of_logits)) {
            Some((.., count)) => *count += 1,
            None => products.push((key, of_logits, 1)),
        }
    }
    planner.predicted(&products, decoder.spec().layers.len(), max_sequences)
}
