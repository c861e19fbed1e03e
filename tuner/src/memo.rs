//! A direct-mapped memory of what was picked for a shape.

use crate::MOST_DIMS;

/// Remembers values by the bits of shapes, one at each of a fixed number of places; a newcomer takes the place of whoever
/// was there. Allocates when it is made, never after.
#[derive(Debug, Clone)]
pub struct Memo<V> {
    /// A power of two of them.
    places: Vec<Option<Place<V>>>,
}

#[derive(Debug, Clone, Copy)]
struct Place<V> {
    bits: [u32; MOST_DIMS],
    len: usize,
    value: V,
}

impl<V: Copy> Memo<V> {
    /// With at least so many places.
    pub fn new(places: usize) -> Memo<V> {
        Memo { places: vec![None; places.clamp(1, 1 << 20).next_power_of_two()] }
    }

    /// What was remembered for a shape.
    #[inline]
    pub fn get(&self, shape: &[f32]) -> Option<V> {
        let place = self.places[self.home(shape)].as_ref()?;
        let is_same = place.len == shape.len() && place.bits.iter().zip(shape).all(|(bits, x)| *bits == x.to_bits());
        is_same.then_some(place.value)
    }

    /// Remembers a value for a shape; a shape of more than [`MOST_DIMS`] numbers is not remembered.
    pub fn insert(&mut self, shape: &[f32], value: V) {
        if shape.len() > MOST_DIMS {
            return;
        }
        let mut bits = [0; MOST_DIMS];
        for (bits, x) in bits.iter_mut().zip(shape) {
            *bits = x.to_bits();
        }
        let home = self.home(shape);
        self.places[home] = Some(Place { bits, len: shape.len(), value });
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.places.fill(None);
    }

    #[inline]
    fn home(&self, shape: &[f32]) -> usize {
        let mut hash = 0_u64;
        for x in shape {
            hash = (hash.rotate_left(5) ^ u64::from(x.to_bits())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        (hash >> 32) as usize & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_remembered_until_another_takes_its_place() {
        let mut memo = Memo::new(64);
        assert_eq!(memo.get(&[1.0, 2.0]), None);
        for at in 0..1000_u32 {
            let shape = [at as f32, 2.0];
            memo.insert(&shape, at);
            assert_eq!(memo.get(&shape), Some(at));
            assert_eq!(memo.get(&[at as f32]), None, "a shorter shape is another");
            assert_eq!(memo.get(&[at as f32, -2.0]), None);
        }
        let kept = (0..1000_u32).filter(|at| memo.get(&[*at as f32, 2.0]) == Some(*at)).count();
        assert!((48..=64).contains(&kept), "{kept} of 64 places");
        memo.clear();
        assert_eq!(memo.get(&[999.0, 2.0]), None);
        let mut none = Memo::new(0);
        none.insert(&[0.0; MOST_DIMS + 1], 1);
        none.insert(&[], 7);
        assert_eq!((none.get(&[0.0; MOST_DIMS + 1]), none.get(&[])), (None, Some(7)));
    }
}
