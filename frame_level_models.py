"""Every frame-level model, by the starter code's module name.

| model | file |
|---|---|
| FrameLevelLogisticModel | models/frame_level.py |
| MeanModel, MaxModel, AttentionMeanModel | models/averages.py |
| GemModel (Radenovic et al. 2019) | models/averages.py |
| AttentionClustersModel (Long et al. 2018) | models/attention_clusters.py |
| PmaModel (Lee et al. 2019) | models/attention_pooling.py |
| AttentiveProbeModel (Bardes et al. 2024) | models/attention_pooling.py |
| BoqModel (Ali-bey et al. 2024) | models/attention_pooling.py |
| DbofModel (Abu-El-Haija et al. 2016) | models/dbof.py |
| NetVLADModelLF (Miech et al. 2017) | models/netvlad.py |
| DbofModelLF, SoftDbofModelLF, GatedDbofModelLF (the same) | models/dbof.py |
| NetFVModelLF (the same) | models/fisher.py |
| LstmModel, GruModel, BiLstmModel, BiGruModel | models/recurrent.py |
| NeXtVLADModel, MixNeXtVladModel (Lin et al. 2018) | models/nextvlad.py |
| AttentionEnhancedNetVLADModel (section 3.1) | models/attention_netvlad.py |
| AttentionNetVLADModel (section 3.2) | models/attention_netvlad.py |
| SecondOrderModel (section 3.3) | models/second_order.py |
"""

from models.attention_clusters import AttentionClustersModel
from models.attention_netvlad import (
  AttentionEnhancedNetVLADModel,
  AttentionNetVLADModel,
)
from models.attention_pooling import (
  AttentiveProbeModel,
  BoqModel,
  PmaModel,
)
from models.averages import (
  AttentionMeanModel,
  GemModel,
  MaxModel,
  MeanModel,
)
from models.dbof import (
  DbofModel,
  DbofModelLF,
  GatedDbofModelLF,
  SoftDbofModelLF,
)
from models.fisher import NetFVModelLF
from models.frame_level import FrameLevelLogisticModel
from models.netvlad import NetVLADModelLF
from models.nextvlad import MixNeXtVladModel, NeXtVLADModel
from models.recurrent import BiGruModel, BiLstmModel, GruModel, LstmModel
from models.second_order import SecondOrderModel

__all__ = [
  "AttentionClustersModel",
  "AttentionEnhancedNetVLADModel",
  "AttentionMeanModel",
  "AttentionNetVLADModel",
  "AttentiveProbeModel",
  "BiGruModel",
  "BiLstmModel",
  "BoqModel",
  "DbofModel",
  "DbofModelLF",
  "FrameLevelLogisticModel",
  "GatedDbofModelLF",
  "GemModel",
  "GruModel",
  "LstmModel",
  "MaxModel",
  "MeanModel",
  "MixNeXtVladModel",
  "NeXtVLADModel",
  "NetFVModelLF",
  "NetVLADModelLF",
  "PmaModel",
  "SecondOrderModel",
  "SoftDbofModelLF",
]
