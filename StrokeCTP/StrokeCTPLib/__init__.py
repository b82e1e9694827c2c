"""CT perfusion of acute stroke: from frames to perfusion maps, core, penumbra and mismatch."""
