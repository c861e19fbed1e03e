//! From what the configuration asks for to where it lies: every tensor is there, has its shape and a known format, and
//! there is none besides.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::names::Naming;
use crate::packed::{PackedPlace, Schemes};
use crate::tensors::{Entry, Tensors};
use crate::{Error, Format, LayerRole, ModelSpec, Role, RowOrder, Tensor};

const VECTOR_FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::Bf16];

/// Where a tensor lies, checked.
#[derive(Debug)]
pub(super) enum Place {
    /// As the model's format has it.
    Plain(PlainPlace),
    /// A matrix of integers in several tensors.
    Packed { place: Box<PackedPlace>, shape: [usize; 2] },
}

/// A tensor of floats, or of GGUF's blocks.
#[derive(Debug)]
pub(super) struct PlainPlace {
    name: String,
    entry: Entry,
    format: Format,
    row_order: RowOrder,
}

/// The tensors of a model, and what is to be said of them.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) of: HashMap<Role, Place>,
    pub(super) notes: Vec<String>,
}

/// Finds every tensor of the model.
///
/// # Errors
/// [`Error::MissingTensor`], [`Error::UnexpectedTensor`], [`Error::Shape`], [`Error::Unsupported`] for a format,
/// [`Error::Malformed`] for parts of a quantised matrix that disagree, and [`Error::NotFinite`] for a vector.
pub(super) fn places(
    path: &Path,
    spec: &ModelSpec,
    tensors: &Tensors,
    naming: Naming,
    schemes: &Schemes,
) -> Result<Places, Error> {
    let mut found = HashMap::new();
    let mut names = HashSet::new();
    let mut modules = HashSet::new();
    for role in spec.roles() {
        let name = naming.name(role);
        let wanted = spec.shape(role);
        if let (&[rows, cols], Some(module)) = (wanted.as_slice(), name.strip_suffix(".weight"))
            && let Some(place) = packed(tensors, module, [rows, cols], schemes)?
        {
            names.extend(place.names.iter().cloned());
            modules.insert(module.to_owned());
            found.insert(role, Place::Packed { place: Box::new(place), shape: [rows, cols] });
            continue;
        }
        let Some(entry) = tensors.entries.get(&name) else {
            return Err(Error::MissingTensor { path: path.into(), name, wanted });
        };
        if entry.shape != wanted {
            return Err(Error::Shape { path: tensors.path(entry).into(), name, met: entry.shape.clone(), wanted });
        }
        let vector = wanted.len() == 1;
        let formats = if vector { &VECTOR_FORMATS[..] } else { &Format::ALL[..] };
        let format = tensors.format(&name, entry, formats)?;
        let row_order = row_order(spec, role, naming);
        let place = PlainPlace { name: name.clone(), entry: entry.clone(), format, row_order };
        if vector {
            place.check_finite(tensors)?;
        }
        names.insert(name);
        found.insert(role, Place::Plain(place));
    }
    let tied = !spec.has.lm_head;
    let harmless = |name: &str, entry: &Entry| {
        naming.harmless(name, tied)
            || schemes.kv_scales && naming.is_kv_scale(name)
            // GPTQ's writers add biases of zeros to what has none.
            || name.strip_suffix(".bias").is_some_and(|module| modules.contains(module))
                && tensors.bytes(entry).iter().all(|byte| *byte == 0)
    };
    match tensors.entries.iter().find(|(name, entry)| !names.contains(*name) && !harmless(name, entry)) {
        Some((name, entry)) => {
            Err(Error::UnexpectedTensor { path: tensors.path(entry).into(), name: name.clone(), family: spec.family })
        }
        None => Ok(Places { notes: notes(&found, schemes), of: found }),
    }
}

/// A matrix of integers in the first scheme that its tensors fit; `None` where the file has none of that name.
///
/// # Errors
/// Those of the first scheme where it fits none.
fn packed(tensors: &Tensors, module: &str, shape: [usize; 2], schemes: &Schemes) -> Result<Option<PackedPlace>, Error> {
    let mut first = None;
    for scheme in schemes.schemes.iter().filter(|scheme| PackedPlace::is_there(tensors, module, scheme)) {
        match PackedPlace::find(tensors, module, shape, scheme) {
            Ok(place) => return Ok(Some(place)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(None), Err)
}

/// What the configuration asks for and does not get, and what matrices cost that are made into floats.
fn notes(places: &HashMap<Role, Place>, schemes: &Schemes) -> Vec<String> {
    let mut notes = schemes.notes.clone();
    let (mut floats, mut float_bytes, mut integer_bytes) = (0, 0, 0);
    for place in places.values() {
        if let Place::Packed { place, shape: [rows, cols] } = place
            && place.format.block().0 == 1
        {
            floats += 1;
            float_bytes += rows * cols * place.format.block().1;
            integer_bytes += rows * cols * place.bits() / 8;
        }
    }
    if floats > 0 {
        notes.push(format!(
            "{floats} matrices are decoded to 16-bit floats at load, {:.1} MB for {:.1} MB of integers: their columns are not in \
             order of their groups (desc_act), or a group is no multiple of 32 columns",
            float_bytes as f64 / 1e6,
            integer_bytes as f64 / 1e6
        ));
    }
    notes
}

fn row_order(spec: &ModelSpec, role: Role, naming: Naming) -> RowOrder {
    let turned = matches!(role, Role::Layer(_, LayerRole::Q | LayerRole::K | LayerRole::QBias | LayerRole::KBias));
    match naming {
        Naming::Gguf { interleaved: true } if turned => RowOrder::Interleaved { head_dim: spec.head_dim },
        _ => RowOrder::Plain,
    }
}

impl Place {
    /// The tensor in its file. A vector is one row, in the file's order.
    pub(super) fn tensor<'a>(&'a self, tensors: &'a Tensors) -> Tensor<'a> {
        match self {
            Place::Plain(place) => place.tensor(tensors),
            &Place::Packed { ref place, shape: [rows, cols] } => Tensor {
                name: &place.name,
                format: place.format,
                rows,
                cols,
                bytes: &[],
                row_order: RowOrder::Plain,
                packed: Some(place.packed(tensors)),
            },
        }
    }

    /// A vector's numbers in the model's order.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(super) fn vector(&self, tensors: &Tensors) -> Result<Vec<f32>, Error> {
        match self {
            Place::Plain(place) => place.vector(tensors),
            Place::Packed { place, .. } => panic!("{} is a matrix", place.name),
        }
    }

    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Malformed`] for a zero point that no block can have.
    pub(super) fn check_finite(&self, tensors: &Tensors) -> Result<(), Error> {
        match self {
            Place::Plain(place) => place.check_finite(tensors),
            Place::Packed { place, shape } => place.check(tensors, *shape),
        }
    }
}

impl PlainPlace {
    fn tensor<'a>(&'a self, tensors: &'a Tensors) -> Tensor<'a> {
        let (rows, cols, row_order) = match self.entry.shape[..] {
            [rows, cols] => (rows, cols, self.row_order),
            _ => (1, self.entry.shape[0], RowOrder::Plain),
        };
        Tensor {
            name: &self.name,
            format: self.format,
            rows,
            cols,
            bytes: tensors.bytes(&self.entry),
            row_order,
            packed: None,
        }
    }

    fn vector(&self, tensors: &Tensors) -> Result<Vec<f32>, Error> {
        assert_eq!(self.entry.shape.len(), 1, "{} is a matrix", self.name);
        self.check_finite(tensors)?;
        let stored = self.tensor(tensors).floats().expect("the open lets no quantised vector pass");
        Ok((0..stored.len()).map(|row| stored[self.row_order.stored(row)]).collect())
    }

    fn check_finite(&self, tensors: &Tensors) -> Result<(), Error> {
        match self.tensor(tensors).first_not_finite() {
            None => Ok(()),
            Some((index, met)) => {
                let path = tensors.path(&self.entry).into();
                Err(Error::NotFinite { path, name: self.name.clone(), index, met })
            }
        }
    }
}
