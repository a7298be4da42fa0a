"""Yokogawa CellVoyager and CQ1: .mlf, .mrf and .mes, or names alone."""
