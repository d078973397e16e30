//! What only the embedded store promises, and faults that only its inside can plant.
