//! Weights as safetensors: names and texts as JSON in the metadata, every number in a tensor of f32.
//!
//! Of each space: `SPACE.prior` [8], the constants in the order of `Prior`; `SPACE.factors` [kernels], logarithms;
//! `SPACE.features` [2, features], what is subtracted and what is multiplied; and of each member `SPACE.M.` with `first`
//! [features + 1, hidden], `second` [hidden + 1, hidden], `last` [hidden + 1, candidates], `traits` [3, candidates] and
//! `shared` [hidden + 1, 3]. A layer's last row is its biases. Candidates fill whole blocks of 16 in memory; a file has those
//! that there are.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::Weights;
use crate::features::Features;
use crate::mlp::{Mlp, Sizes, TRAIT_ROW};
use crate::numbers::{BLOCK, Block};
use crate::prior::{CONSTANTS, Prior, TRAITS};
use crate::train::MOST_MEMBERS;
use crate::{Candidate, MOST_CANDIDATES, Model, Space};

/// The only key of the metadata; it ends with the version of the tensors.
const KEY: &str = "raglan_tuner_weights_1";
/// Of a file.
pub(super) const MOST_BYTES: usize = 16 << 20;
const MOST_MODELS: usize = 64;
/// Of the hidden layers.
const WIDTHS: [[usize; 2]; 3] = [[16, 16], [32, 16], [32, 32]];
/// No number of the MLP or of the features is larger.
const LARGEST: f32 = 1e12;
/// The same of the prior's constants, which have bounds of their own.
const LARGEST_CONSTANT: f32 = 1e15;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    adapter_type: String,
    adapter: String,
    driver: String,
    date: String,
    dataset_sha256: String,
    kernel_hashes: BTreeMap<String, String>,
    scores: serde_json::Value,
    models: Vec<ModelHead>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelHead {
    space: Space,
    candidates: Vec<String>,
    kernels: Vec<String>,
    on_prior: bool,
    hidden: [usize; 2],
    members: usize,
}

/// A tensor of a member: its name, rows and columns, and where its rows lie in the member's numbers.
struct Place {
    name: &'static str,
    shape: [usize; 2],
    begin: usize,
    row: usize,
}

fn places(sizes: Sizes, candidates: usize) -> [Place; 5] {
    let (parts, first, second) = (sizes.parts(), sizes.first * BLOCK, sizes.second * BLOCK);
    let outputs = sizes.outputs * BLOCK;
    let place = |name, shape, block: usize, row| Place { name, shape, begin: block * BLOCK, row };
    [
        place("first", [sizes.inputs + 1, first], parts.first[0], first),
        place("second", [first + 1, second], parts.second[0], second),
        place("last", [second + 1, candidates], parts.last[0], outputs),
        place("traits", [TRAITS, candidates], parts.traits, outputs),
        place("shared", [second + 1, TRAITS], parts.shared[0], TRAIT_ROW),
    ]
}

pub(super) fn write(weights: &Weights) -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, values: &[f32]| {
        tensors.push((name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()));
    };
    let mut heads = Vec::new();
    for model in &weights.models {
        let space = &model.space.name;
        let factors: Vec<f32> = model.prior.kernels.iter().map(|(_, factor)| *factor).collect();
        let features = model.features.constants().concat();
        add(format!("{space}.prior"), vec![CONSTANTS], &model.prior.constants());
        add(format!("{space}.factors"), vec![factors.len()], &factors);
        add(format!("{space}.features"), vec![2, model.features.len()], &features);
        for (at, member) in model.members.iter().enumerate() {
            let numbers = |at: usize| member.blocks[at / BLOCK].0[at % BLOCK];
            for Place { name, shape, begin, row } in places(member.sizes, model.candidates.len()) {
                let of_row = |at: usize| (begin + at * row..begin + at * row + shape[1]).map(numbers);
                let values: Vec<f32> = (0..shape[0]).flat_map(of_row).collect();
                add(format!("{space}.{at}.{name}"), shape.to_vec(), &values);
            }
        }
        heads.push(ModelHead {
            space: model.space.clone(),
            candidates: model.candidates.iter().map(Candidate::to_string).collect(),
            kernels: model.prior.kernels.iter().map(|(name, _)| name.clone()).collect(),
            on_prior: model.on_prior,
            hidden: model
                .members
                .first()
                .map_or([1; 2], |m| [m.sizes.first, m.sizes.second])
                .map(|blocks| blocks * BLOCK),
            members: model.members.len(),
        });
    }
    let head = Head {
        adapter_type: weights.adapter_type.clone(),
        adapter: weights.adapter.clone(),
        driver: weights.driver.clone(),
        date: weights.date.clone(),
        dataset_sha256: weights.dataset_sha256.clone(),
        kernel_hashes: weights.kernel_hashes.clone(),
        scores: weights.scores.clone(),
        models: heads,
    };
    let json = serde_json::to_string(&head).expect("texts, whole numbers and a JSON value are JSON");
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a shape holds as many numbers as were put in it"),
        )
    });
    safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), json)])))
        .expect("tensors of the right size with a head that is JSON can be written")
}

pub(super) fn read(bytes: &[u8]) -> Result<Weights, String> {
    if bytes.len() > MOST_BYTES {
        return Err(format!("{} bytes, at most {MOST_BYTES} are allowed", bytes.len()));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let json = metadata
        .metadata()
        .as_ref()
        .and_then(|pairs| pairs.get(KEY))
        .ok_or_else(|| format!("its metadata has no {KEY}"))?;
    let head: Head = serde_json::from_str(json).map_err(|error| format!("{KEY}: {error}"))?;
    if head.models.len() > MOST_MODELS {
        return Err(format!("{} models, at most {MOST_MODELS} are allowed", head.models.len()));
    }
    let mut models: Vec<Model> = Vec::new();
    for model in head.models {
        let model = read_model(&tensors, model)?;
        if models.iter().any(|other| other.space.name == model.space.name) {
            return Err(format!("the space {} is there twice", model.space.name));
        }
        models.push(model);
    }
    Ok(Weights {
        adapter_type: head.adapter_type,
        adapter: head.adapter,
        driver: head.driver,
        date: head.date,
        dataset_sha256: head.dataset_sha256,
        kernel_hashes: head.kernel_hashes,
        scores: head.scores,
        models,
    })
}

fn read_model(tensors: &SafeTensors<'_>, head: ModelHead) -> Result<Model, String> {
    let ModelHead { space, candidates, kernels, on_prior, hidden, members } = head;
    if let Some(fault) = space.fault() {
        return Err(fault);
    }
    let name = &space.name;
    if candidates.is_empty() || candidates.len() > MOST_CANDIDATES {
        return Err(format!("{name}: {} candidates, 1 to {MOST_CANDIDATES} are allowed", candidates.len()));
    }
    let candidates: Vec<Candidate> =
        candidates.iter().map(|text| text.parse()).collect::<Result<_, crate::Error>>().map_err(|e| e.to_string())?;
    if let Some(twice) = candidates.iter().enumerate().find(|(at, c)| candidates[..*at].contains(c)) {
        return Err(format!("{name}: {} is there twice", twice.1));
    }
    if kernels.len() > MOST_CANDIDATES || members > MOST_MEMBERS || !WIDTHS.contains(&hidden) {
        return Err(format!("{name}: {} kernels, {members} members of widths {hidden:?}", kernels.len()));
    }
    let constants = bounded(tensors, &format!("{name}.prior"), &[CONSTANTS], LARGEST_CONSTANT)?;
    let factors = numbers(tensors, &format!("{name}.factors"), &[kernels.len()])?;
    let constants = constants.try_into().map_err(|_| format!("{name}.prior has another length"))?;
    let prior = Prior::from_constants(constants, kernels.into_iter().zip(factors).collect())
        .ok_or_else(|| format!("{name}: a constant of the prior is out of bounds"))?;
    let mut features = Features::new(&space);
    let standard = numbers(tensors, &format!("{name}.features"), &[2, features.len()])?;
    let (mean, scale) = standard.split_at(features.len());
    features.set_constants(mean, scale);
    let sizes = Sizes {
        inputs: features.len(),
        first: hidden[0] / BLOCK,
        second: hidden[1] / BLOCK,
        outputs: candidates.len().div_ceil(BLOCK),
    };
    let members = (0..members).map(|at| read_member(tensors, &format!("{name}.{at}"), sizes, candidates.len()));
    let members = members.collect::<Result<Vec<Mlp>, String>>()?;
    if members.is_empty() && !on_prior {
        return Err(format!("{name}: neither a prior nor an MLP"));
    }
    let factors = prior.factors(&candidates);
    Ok(Model { space, candidates, features, prior, factors, on_prior, members })
}

fn read_member(tensors: &SafeTensors<'_>, name: &str, sizes: Sizes, candidates: usize) -> Result<Mlp, String> {
    let mut blocks = vec![Block::ZERO; sizes.parts().end];
    for Place { name: tensor, shape, begin, row } in places(sizes, candidates) {
        let values = numbers(tensors, &format!("{name}.{tensor}"), &shape)?;
        for (at, value) in values.iter().enumerate() {
            let place = begin + at / shape[1] * row + at % shape[1];
            blocks[place / BLOCK].0[place % BLOCK] = *value;
        }
    }
    Ok(Mlp { sizes, blocks })
}

/// The numbers of a tensor of a known shape.
fn numbers(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    bounded(tensors, name, shape, LARGEST)
}

fn bounded(tensors: &SafeTensors<'_>, name: &str, shape: &[usize], largest: f32) -> Result<Vec<f32>, String> {
    let tensor = tensors.tensor(name).map_err(|_| format!("no tensor {name}"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(format!("{name} is {:?} {:?}, F32 {shape:?} is wanted", tensor.dtype(), tensor.shape()));
    }
    let (words, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    match values.iter().find(|x| x.is_nan() || x.abs() > largest) {
        Some(value) => Err(format!("{name} holds {value}")),
        None => Ok(values),
    }
}
