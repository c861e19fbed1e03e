//! From what the configuration asks for to where it lies: every tensor is there, has its shape and a known format, and
//! there is none besides.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::names::Naming;
use crate::tensors::{Entry, Tensors};
use crate::{Error, Format, LayerRole, ModelSpec, Role, RowOrder, Tensor};

const VECTOR_FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::Bf16];

/// Where a tensor lies, checked.
#[derive(Debug)]
pub(super) struct Place {
    name: String,
    entry: Entry,
    format: Format,
    row_order: RowOrder,
}

/// Finds every tensor of the model.
///
/// # Errors
/// [`Error::MissingTensor`], [`Error::UnexpectedTensor`], [`Error::Shape`], [`Error::Unsupported`] for a format, and
/// [`Error::NotFinite`] for a vector.
pub(super) fn places(
    path: &Path,
    spec: &ModelSpec,
    tensors: &Tensors,
    naming: Naming,
) -> Result<HashMap<Role, Place>, Error> {
    let mut found = HashMap::new();
    let mut names = HashSet::new();
    for role in spec.roles() {
        let name = naming.name(role);
        let wanted = spec.shape(role);
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
        let place = Place { name: name.clone(), entry: entry.clone(), format, row_order };
        if vector {
            place.check_finite(tensors)?;
        }
        names.insert(name);
        found.insert(role, place);
    }
    let tied = !spec.has.lm_head;
    match tensors.entries.iter().find(|(name, _)| !names.contains(*name) && !naming.harmless(name, tied)) {
        Some((name, entry)) => {
            Err(Error::UnexpectedTensor { path: tensors.path(entry).into(), name: name.clone(), family: spec.family })
        }
        None => Ok(found),
    }
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

    /// A vector's numbers in the model's order.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(super) fn vector(&self, tensors: &Tensors) -> Result<Vec<f32>, Error> {
        assert_eq!(self.entry.shape.len(), 1, "{} is a matrix", self.name);
        self.check_finite(tensors)?;
        let stored = self.tensor(tensors).floats().expect("the open lets no quantised vector pass");
        Ok((0..stored.len()).map(|row| stored[self.row_order.stored(row)]).collect())
    }

    /// # Errors
    /// [`Error::NotFinite`].
    pub(super) fn check_finite(&self, tensors: &Tensors) -> Result<(), Error> {
        match self.tensor(tensors).first_not_finite() {
            None => Ok(()),
            Some((index, met)) => {
                let path = tensors.path(&self.entry).into();
                Err(Error::NotFinite { path, name: self.name.clone(), index, met })
            }
        }
    }
}
