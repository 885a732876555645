"""Every frame-level model, by the starter code's module name.

| model | file |
|---|---|
| FrameLevelLogisticModel | models/frame_level.py |
| MeanModel, MaxModel, AttentionMeanModel | models/averages.py |
| GemModel (Radenovic et al. 2019) | models/averages.py |
| DbofModel (Abu-El-Haija et al. 2016) | models/dbof.py |
| NetVLADModelLF (Miech et al. 2017) | models/netvlad.py |
| NeXtVLADModel, MixNeXtVladModel (Lin et al. 2018) | models/nextvlad.py |
| AttentionEnhancedNetVLADModel (section 3.1) | models/attention_netvlad.py |
| AttentionNetVLADModel (section 3.2) | models/attention_netvlad.py |
| SecondOrderModel (section 3.3) | models/second_order.py |
"""

from models.attention_netvlad import (
  AttentionEnhancedNetVLADModel,
  AttentionNetVLADModel,
)
from models.averages import (
  AttentionMeanModel,
  GemModel,
  MaxModel,
  MeanModel,
)
from models.dbof import DbofModel
from models.frame_level import FrameLevelLogisticModel
from models.netvlad import NetVLADModelLF
from models.nextvlad import MixNeXtVladModel, NeXtVLADModel
from models.second_order import SecondOrderModel

__all__ = [
  "AttentionEnhancedNetVLADModel",
  "AttentionMeanModel",
  "AttentionNetVLADModel",
  "DbofModel",
  "FrameLevelLogisticModel",
  "GemModel",
  "MaxModel",
  "MeanModel",
  "MixNeXtVladModel",
  "NeXtVLADModel",
  "NetVLADModelLF",
  "SecondOrderModel",
]
