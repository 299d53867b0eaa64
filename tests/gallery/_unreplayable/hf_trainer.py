"""Which chapter of the Python manual does a snippet come from? A tiny BERT on words."""
import re
import tempfile
from collections import Counter
from pydoc_data.topics import topics

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed


class Snippets(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        ids, label = self.items[i]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": label}


def main():
    set_seed(0)
    names = sorted(topics, key=lambda k: -len(topics[k]))[:4]
    words = {name: re.findall(r"[a-z_]+", topics[name].lower()) for name in names}
    common = Counter(w for name in names for w in words[name]).most_common(798)
    index = {w: i + 2 for i, (w, _) in enumerate(common)}
    length, items = 32, []
    for label, name in enumerate(names):
        ids = torch.tensor([index.get(w, 1) for w in words[name]])
        for start in range(0, len(ids) - length, length // 2):
            items.append((ids[start:start + length], label))
    order = torch.randperm(len(items)).tolist()
    items = [items[i] for i in order]
    cut = len(items) * 9 // 10

    config = BertConfig(vocab_size=800, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=length, num_labels=len(names))
    model = BertForSequenceClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(output_dir=folder, num_train_epochs=10, per_device_train_batch_size=32,
                                 learning_rate=2e-3, logging_steps=25, save_strategy="no", report_to=[],
                                 use_cpu=True, disable_tqdm=True, dataloader_num_workers=0)
        trainer = Trainer(model=model, args=args, train_dataset=Snippets(items[:cut]), eval_dataset=Snippets(items[cut:]),
                          compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())})
        trainer.train()
        print(trainer.evaluate())


if __name__ == "__main__":
    main()
