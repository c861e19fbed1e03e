//! x
use raglan::self_test;
fn main() {
    env_logger::init();
    let adapters = self_test::Adapters::open(&Default::default()).unwrap();
    for t in self_test::all() {
        let s = std::time::Instant::now();
        println!("{} {:?} {:?}", t.name, (t.run)(&adapters), s.elapsed());
    }
}
