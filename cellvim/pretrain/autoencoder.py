"""The masked autoencoder of a finished run, decoder included, which `model.safetensors` does not hold."""

from pathlib import Path

from cellvim.errors import NotFoundError
from cellvim.model import MaskedAutoencoder, load_encoder
from cellvim.model.tensors import read_tensors
from cellvim.pretrain.state import list_checkpoints

PREFIX = "ema/autoencoder."
HINT = "give a run folder of `cellvim pretrain` with objective mae or align, its checkpoints included"


def load_autoencoder(run: Path) -> MaskedAutoencoder:
    """Read the moving average of a run's autoencoder from its newest checkpoint, in evaluation mode.

    Raises:
        NotFoundError: The run is not finished, or its checkpoints are gone, or it has no decoder.
        InputError: A file is damaged.
    """
    _, card = load_encoder(run)
    checkpoints = list_checkpoints(run / "checkpoints")
    state = read_tensors(checkpoints[-1], hint=HINT)[1] if checkpoints else {}
    own = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if not own:
        raise NotFoundError(run / "checkpoints", expected="masked autoencoder", hint=HINT)
    autoencoder = MaskedAutoencoder(card.model, card.channels, seed=card.seed)
    autoencoder.load_state_dict(own)
    return autoencoder.eval()
