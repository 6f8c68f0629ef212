"""Bad inputs for every loader and command, made when needed: what it is, how it is made and read, what should come."""

from corpus_inputs.annotations import json_inputs, shape_inputs
from corpus_inputs.banks import bank_inputs
from corpus_inputs.commands import command_inputs
from corpus_inputs.images import image_inputs
from corpus_inputs.trees import tree_inputs
from corpus_inputs.weights import weights_inputs
from corpus_inputs.words import words_inputs

INPUTS = [
    *image_inputs(),
    *json_inputs(),
    *shape_inputs(),
    *tree_inputs(),
    *words_inputs(),
    *weights_inputs(),
    *command_inputs(),
    *bank_inputs(),
]
